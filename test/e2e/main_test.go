//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"testing"
)

// shared is the cluster of all tests that do not restart one.
var shared *cluster

func TestMain(m *testing.M) { os.Exit(runAll(m)) }

// runAll starts the shared cluster, runs the tests, and looks for what the cluster left. Its lines have the form of a test's, so that the
// list of what must pass can name them.
func runAll(m *testing.M) (code int) {
	tb := &setup{}
	defer func() {
		tb.cleanup()
		if tb.failed && code == 0 {
			code = 1
		}
	}()
	ok := tb.run(func() {
		shared = newCluster(tb)
		shared.up(tb)
	})
	report("Up", ok)
	if ok {
		code = m.Run()
		report("DownAndUninstall", tb.run(func() { shared.uninstall(tb) }))
		report("LogHasNoStorm", tb.run(func() { shared.checkLog(tb) }))
	}
	if os.Getenv("CAROB_E2E_KEEP_LOG") != "" || code != 0 || tb.failed {
		shared.showLog()
	}
	return code
}

func report(name string, ok bool) {
	word := "PASS"
	if !ok {
		word = "FAIL"
	}
	fmt.Printf("--- %s: %s (0.00s)\n", word, name)
}

// setup is a testing.TB for what is made outside of any test.
type setup struct {
	testing.TB
	failed   bool
	cleanups []func()
}

type setupFailed struct{}

// run reports whether f came to its end.
func (s *setup) run(f func()) (ok bool) {
	before := s.failed
	s.failed = false
	defer func() {
		if r := recover(); r != nil {
			if _, own := r.(setupFailed); !own {
				panic(r)
			}
		}
		ok = !s.failed
		s.failed = s.failed || before
	}()
	f()
	return true
}

func (s *setup) cleanup() {
	for len(s.cleanups) > 0 {
		f := s.cleanups[len(s.cleanups)-1]
		s.cleanups = s.cleanups[:len(s.cleanups)-1]
		f()
	}
}

func (s *setup) Name() string              { return "main" }
func (s *setup) Helper()                   {}
func (s *setup) Failed() bool              { return s.failed }
func (s *setup) Cleanup(f func())          { s.cleanups = append(s.cleanups, f) }
func (s *setup) Log(args ...any)           { fmt.Println(args...) }
func (s *setup) Logf(f string, a ...any)   { fmt.Printf(f+"\n", a...) }
func (s *setup) Error(args ...any)         { fmt.Println(args...); s.failed = true }
func (s *setup) Errorf(f string, a ...any) { fmt.Printf(f+"\n", a...); s.failed = true }
func (s *setup) Fatal(args ...any)         { s.Error(args...); panic(setupFailed{}) }
func (s *setup) Fatalf(f string, a ...any) { s.Errorf(f, a...); panic(setupFailed{}) }
