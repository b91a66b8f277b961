package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"carob.dev/carob/internal/cli/admin"
)

// stages are the parts that run, in the order they were started. Each has an owner that ends it and waits for it; they end in reverse.
type stages struct {
	log    *slog.Logger
	tell   func(string)
	began  time.Time
	failed chan error

	mu      sync.Mutex // guards steps and running
	steps   []admin.Step
	running []stage
}

type stage struct {
	name string
	end  func() error
}

func newStages(log *slog.Logger, tell func(string)) *stages {
	return &stages{log: log, tell: tell, began: time.Now(), failed: make(chan error, 16)}
}

// step does one thing of the start, times it and tells it.
func (s *stages) step(name string, f func() error) error {
	began := time.Now()
	if err := f(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	took := time.Since(began)
	s.mu.Lock()
	s.steps = append(s.steps, admin.Step{Name: name, Millis: took.Milliseconds()})
	s.mu.Unlock()
	s.tell(fmt.Sprintf("%-46s %6d ms", name, took.Milliseconds()))
	return nil
}

// onEnd registers what must be closed.
func (s *stages) onEnd(name string, end func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = append(s.running, stage{name, end})
}

// run starts a part that runs until its context ends. One that returns by itself, with an error or not, fails the whole.
func (s *stages) run(name string, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		err := f(ctx)
		if ctx.Err() == nil {
			select {
			case s.failed <- fmt.Errorf("%s ended by itself: %w", name, errors.Join(err, errEnded)):
			default:
			}
		}
		done <- err
	}()
	s.onEnd(name, func() error {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	})
}

var errEnded = errors.New("it should run for ever")

// end stops everything, last started first.
func (s *stages) end() error { return s.endFrom(0) }

// endFrom stops what was started after the first n stages.
func (s *stages) endFrom(n int) error {
	s.mu.Lock()
	list := s.running[n:]
	s.running = s.running[:n:n]
	s.mu.Unlock()
	var errs []error
	for i := len(list) - 1; i >= 0; i-- {
		began := time.Now()
		if err := list[i].end(); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", list[i].name, err))
		}
		s.log.Debug("stopped", "part", list[i].name, "took", time.Since(began))
	}
	return errors.Join(errs...)
}

// count is how many stages run, for endFrom.
func (s *stages) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.running)
}

// times is a copy of the steps so far.
func (s *stages) times() []admin.Step {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]admin.Step(nil), s.steps...)
}
