// Command nnp is the program of the stand-in for the e2e image nonewprivs: installed setuid root, it says as whom it runs.
package main

import (
	"fmt"
	"os"
)

func main() { fmt.Printf("Effective uid: %d\n", os.Geteuid()) }
