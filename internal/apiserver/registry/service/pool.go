package service

import (
	"errors"
	"math/rand/v2"
)

var (
	errTaken = errors.New("already allocated")
	errFull  = errors.New("range is full")
)

// pool hands out the numbers from 0 to size-1. The lowest, below band, are left for those who ask for one by name, while others last.
type pool struct {
	size, band int
	used       map[int]struct{}
}

func newPool(size, band int) *pool {
	return &pool{size: size, band: band, used: map[int]struct{}{}}
}

// take takes one number.
func (p *pool) take(n int) error {
	if _, ok := p.used[n]; ok {
		return errTaken
	}
	p.used[n] = struct{}{}
	return nil
}

// next takes a free number, at random.
func (p *pool) next() (int, error) {
	for _, part := range [][2]int{{p.band, p.size}, {0, p.band}} {
		low, span := part[0], part[1]-part[0]
		if span <= 0 {
			continue
		}
		start := rand.IntN(span)
		for i := range span {
			if n := low + (start+i)%span; p.take(n) == nil {
				return n, nil
			}
		}
	}
	return 0, errFull
}

func (p *pool) release(n int) { delete(p.used, n) }
