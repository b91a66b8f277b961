package image

import (
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"k8s.io/utils/clock"
)

// Progress is how far a pull or import has come.
type Progress struct {
	// Ref is the image, normalised.
	Ref string
	// Bytes of Total have arrived, packed. Total is 0 until it is known.
	Bytes, Total int64
	// Unpacked of Layers are ready.
	Unpacked, Layers int
}

// progressEvery is how often a caller hears of bytes at most. Layers are told one by one.
const progressEvery = 100 * time.Millisecond

// meter adds up progress and tells it. A nil meter does nothing.
type meter struct {
	tell  func(Progress)
	clock clock.PassiveClock

	mu   sync.Mutex
	p    Progress
	told time.Time
}

func (m *meter) add(n int64) { m.change(false, func(p *Progress) { p.Bytes += n }) }

func (m *meter) unpacked() { m.change(true, func(p *Progress) { p.Unpacked++ }) }

func (m *meter) expect(layers []ocispec.Descriptor) {
	m.change(true, func(p *Progress) {
		p.Layers, p.Total = len(layers), 0
		for _, l := range layers {
			p.Total += l.Size
		}
	})
}

func (m *meter) change(always bool, fn func(*Progress)) {
	if m == nil || m.tell == nil {
		return
	}
	m.mu.Lock()
	fn(&m.p)
	now := m.clock.Now()
	due := always || now.Sub(m.told) >= progressEvery
	if due {
		m.told = now
	}
	p := m.p
	m.mu.Unlock()
	if due {
		m.tell(p)
	}
}
