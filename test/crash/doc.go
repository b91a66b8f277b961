// Package crash kills a node at every moment that can be told apart, and at many that cannot, starts it again, and looks at what comes of it:
// each Pod's life goes on where it was, no container runs twice, no exit code is lost, and nothing is left behind.
//
// It needs root and build/images; make crash runs it. life is the program that is killed.
package crash
