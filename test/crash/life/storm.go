package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// atOnce is how many Pods are at some stage of their lives at the same time.
const atOnce = 4

// storm resumes the lives that an earlier process was killed in, and begins new ones, until it is killed.
func (n *node) storm(ctx context.Context) error {
	names := make(chan string)
	errs := make(chan error, atOnce)
	for range atOnce {
		go func() {
			for name := range names {
				if err := n.lead(ctx, name); err != nil {
					errs <- fmt.Errorf("%s: %w", name, err)
					return
				}
			}
		}()
	}
	begun, err := n.begun()
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		name := fmt.Sprintf("s%d-%d", time.Now().UnixNano()/1e6, i)
		if i < len(begun) {
			name = begun[i]
		}
		select {
		case names <- name:
		case err := <-errs:
			return err
		}
	}
}

// check leads every life that was begun to its end.
func (n *node) check(ctx context.Context) error {
	names, err := n.begun()
	if err != nil {
		return err
	}
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i, name := range names {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if err := n.lead(ctx, name); err != nil {
				errs[i] = fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// begun are the Pods whose lives have not come to their end.
func (n *node) begun() (names []string, err error) {
	entries, err := os.ReadDir(n.cfg.Path("lives"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// lead takes a Pod from where it is to its end.
func (n *node) lead(ctx context.Context, name string) error {
	l := &life{node: n, name: name}
	if raw, err := os.ReadFile(l.file()); err == nil {
		if err := json.Unmarshal(raw, &l.facts); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(l.out(), 0o755); err != nil {
		return err
	}
	for ; l.facts.Step < len(steps); l.facts.Step++ {
		if err := l.note(); err != nil {
			return err
		}
		if err := steps[l.facts.Step](l, ctx); err != nil {
			return fmt.Errorf("step %d: %w", l.facts.Step, err)
		}
		if err := l.once(); err != nil {
			return fmt.Errorf("after step %d: %w", l.facts.Step, err)
		}
	}
	if err := l.note(); err != nil {
		return err
	}
	return l.forget()
}

// forget removes what was noted. The facts go last: without them the Pod would begin anew.
func (l *life) forget() error {
	return errors.Join(os.RemoveAll(l.out()), os.RemoveAll(filepath.Join(l.dir(), "logs")), os.RemoveAll(l.dir()))
}
