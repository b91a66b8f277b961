package wire

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFrameRoundTrip(t *testing.T) {
	for _, f := range []Frame{
		{},
		{V: 1, Seq: 7, Op: OpRun, ID: "abc", Log: "/a \"b\"\\\n\x01/ü", Args: []string{"", "x", "日本"}, Code: -1, OOM: 1, Started: 1 << 60},
	} {
		b := f.Append(nil)
		if !json.Valid(b) {
			t.Errorf("not JSON: %s", b)
		}
		var got Frame
		if err := got.Parse(b); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if d := cmp.Diff(f, got); d != "" {
			t.Errorf("%s: %s", b, d)
		}
	}
}

func TestParseSkipsWhatItDoesNotKnow(t *testing.T) {
	var f Frame
	in := ` {"new": {"a":[1,{"b":null}],"c":true}, "op":"exit" , "more":[], "x":-1.5e3, "code":3}`
	if err := f.Parse([]byte(in)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(Frame{Op: OpExit, Code: 3}, f); d != "" {
		t.Error(d)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, in := range []string{"", "{", "[]", `{"op":1}`, `{"code":"x"}`, `{"op":"a"}x`, `{"op":"a`, `{"a":[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]}`, `{"op":"\u00"}`, `{"op":"a",}`} {
		if err := new(Frame).Parse([]byte(in)); err == nil {
			t.Errorf("%q was taken", in)
		}
	}
}

// FuzzFrame holds that what is taken as a frame is the same frame when it is written and read again.
func FuzzFrame(f *testing.F) {
	f.Add([]byte(`{"v":1,"op":"run","args":["a"]}`))
	f.Add([]byte(`{"err":"\u00e9\ud83d\n\\","x":[{"y":[null,1.5e3]}],"args":[]}`))
	recorded, err := os.ReadFile("testdata/v1/pod.txt")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(recorded)) {
		if len(line) > 2 && (line[0] == '<' || line[0] == '>') {
			f.Add([]byte(strings.TrimSpace(line[2:])))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var a, c Frame
		if a.Parse(b) != nil {
			return
		}
		if err := c.Parse(a.Append(nil)); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(a, c); d != "" {
			t.Error(d)
		}
	})
}
