package podstate

import (
	"fmt"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

func TestSteps(t *testing.T) {
	mem := func(n int64) Amounts { return Amounts{CPURequest: 1, CPULimit: 10, MemoryLimit: n} }
	cpu := func(a Amounts, request, limit int64) Amounts { a.CPURequest, a.CPULimit = request, limit; return a }
	for _, tt := range []struct {
		name       string
		pod        Change
		containers []Change
		want       []string
		room       int
	}{
		{name: "nothing", pod: Change{From: mem(1), To: mem(1)}},
		{name: "grows", pod: Change{From: mem(2), To: mem(3)}, containers: []Change{{Container: "a", From: mem(1), To: mem(2)}},
			want: []string{" 1/10/3", "a 1/10/2"}, room: 1},
		{name: "shrinks", pod: Change{From: mem(3), To: mem(2)}, containers: []Change{{Container: "a", From: mem(2), To: mem(1)}},
			want: []string{"a 1/10/1", " 1/10/2"}},
		{name: "one grows and one shrinks", pod: Change{From: mem(3), To: mem(3)},
			containers: []Change{{Container: "a", From: mem(1), To: mem(2)}, {Container: "b", From: mem(2), To: mem(1)}},
			want:       []string{"b 1/10/1", "a 1/10/2"}},
		{name: "memory before cpu", pod: Change{From: mem(3), To: cpu(mem(2), 2, 20)},
			containers: []Change{{Container: "a", From: mem(2), To: cpu(mem(1), 2, 20)}},
			want:       []string{" 2/20/3", "a 1/10/1", "a 2/20/1", " 2/20/2"}, room: 1},
		{name: "a first limit", pod: Change{From: mem(0), To: mem(2)}, containers: []Change{{Container: "a", From: mem(0), To: mem(2)}},
			want: []string{"a 1/10/2", " 1/10/2"}},
	} {
		steps, room := Steps(tt.pod, tt.containers)
		var got []string
		for _, s := range steps {
			got = append(got, fmt.Sprintf("%s %d/%d/%d", s.Container, s.To.CPURequest, s.To.CPULimit, s.To.MemoryLimit))
		}
		if diff := gocmp.Diff(tt.want, got); diff != "" || room != tt.room {
			t.Errorf("%s: room %d, want %d; %s", tt.name, room, tt.room, diff)
		}
	}
}
