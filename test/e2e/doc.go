// Package e2e runs a whole Carob inside a test host and looks at it as users do: through the stock kubectl.
//
// Its tests have the build tag e2e and need root: run them with test/e2e/run.sh or `make e2e`. They may import test/host, test/leak, the
// config package (for names on the host) and Kubernetes' client libraries, which only wait and count; all that is tried goes through kubectl
// or the carob binary. Each test has a namespace of its own; tests that kill or restart a Carob have a host of their own. When all have
// run, the Carob is uninstalled, and anything it left on the machine fails the run.
package e2e
