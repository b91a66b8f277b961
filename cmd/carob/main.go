// Command carob runs Kubernetes Pods: see carob --help.
package main

import (
	"os"

	"carob.dev/carob/internal/app"
	"carob.dev/carob/internal/cli"
)

func main() {
	os.Exit(cli.Run(cli.Root(app.StopLeftPods, app.Commands()...), os.Args[1:], os.Stderr))
}
