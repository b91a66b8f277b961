// Package health holds what a user can meet going wrong, as data: a stable code, what happened, why, and what to do.
//
// It imports nothing of the project. `carob check` and `carob status` print these; errors that end a command carry one.
package health

import (
	"errors"
	"fmt"
)

// Severity orders problems by how much they stop.
type Severity string

// The severities.
const (
	// Error: the thing asked for does not work.
	Error Severity = "error"
	// Warning: it works, less well than it should.
	Warning Severity = "warning"
)

// Problem is one thing wrong, told so that a user can mend it. It is an error.
type Problem struct {
	// Code is stable: scripts may match it. CamelCase, as Kubernetes' reasons are.
	Code string `json:"code"`
	// Severity says how much it stops.
	Severity Severity `json:"severity"`
	// What happened, one sentence.
	What string `json:"what"`
	// Why it happened, as far as known.
	Why string `json:"why,omitempty"`
	// Fix is what the user can do: a command where there is one.
	Fix string `json:"fix,omitempty"`
}

// Error prints all parts on one line.
func (p *Problem) Error() string {
	s := fmt.Sprintf("%s: %s", p.Code, p.What)
	if p.Why != "" {
		s += ": " + p.Why
	}
	if p.Fix != "" {
		s += " (fix: " + p.Fix + ")"
	}
	return s
}

// As finds the Problem that err wraps, if there is one.
func As(err error) (*Problem, bool) {
	var p *Problem
	ok := errors.As(err, &p)
	return p, ok
}
