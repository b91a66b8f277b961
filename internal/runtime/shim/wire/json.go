package wire

import (
	"errors"
	"strconv"
	"unicode/utf8"
)

// ErrFrame is returned for bytes that are no frame.
var ErrFrame = errors.New("malformed frame")

// Append appends the frame, without its zero fields, to b.
func (f *Frame) Append(b []byte) []byte {
	b = append(b, '{')
	first := true
	key := func(k string) {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, '"')
		b = append(b, k...)
		b = append(b, '"', ':')
	}
	for _, n := range f.ints() {
		if *n.p != 0 {
			key(n.key)
			b = strconv.AppendInt(b, int64(*n.p), 10)
		}
	}
	for _, s := range f.strs() {
		if *s.p != "" {
			key(s.key)
			b = appendString(b, *s.p)
		}
	}
	if len(f.Args) > 0 {
		key("args")
		b = append(b, '[')
		for i, a := range f.Args {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, a)
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

const hexDigits = "0123456789abcdef"

func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// Parse reads a frame. It returns ErrFrame for anything that is not one JSON object of the right types.
func (f *Frame) Parse(b []byte) error {
	*f = Frame{}
	p := parser{b: b}
	if !p.object(f) || !p.end() {
		return ErrFrame
	}
	return nil
}

type parser struct {
	b     []byte
	i     int
	depth int
}

func (p *parser) space() {
	for p.i < len(p.b) && (p.b[p.i] == ' ' || p.b[p.i] == '\n' || p.b[p.i] == '\t' || p.b[p.i] == '\r') {
		p.i++
	}
}

func (p *parser) end() bool { p.space(); return p.i == len(p.b) }

func (p *parser) take(c byte) bool {
	p.space()
	if p.i < len(p.b) && p.b[p.i] == c {
		p.i++
		return true
	}
	return false
}

func (p *parser) peek() byte {
	p.space()
	if p.i < len(p.b) {
		return p.b[p.i]
	}
	return 0
}

func (p *parser) object(f *Frame) bool {
	if !p.take('{') {
		return false
	}
	if p.take('}') {
		return true
	}
	for {
		k, ok := p.str()
		if !ok || !p.take(':') || !p.value(f, k) {
			return false
		}
		if p.take('}') {
			return true
		}
		if !p.take(',') {
			return false
		}
	}
}

func (p *parser) value(f *Frame, key string) bool {
	if key == "args" {
		return p.strings(&f.Args)
	}
	for _, n := range f.ints() {
		if n.key == key {
			return p.int(n.p)
		}
	}
	for _, s := range f.strs() {
		if s.key == key {
			v, ok := p.str()
			*s.p = v
			return ok
		}
	}
	return p.skip()
}

func (p *parser) strings(out *[]string) bool {
	if !p.take('[') {
		return false
	}
	if p.take(']') {
		return true
	}
	for {
		s, ok := p.str()
		if !ok {
			return false
		}
		*out = append(*out, s)
		if p.take(']') {
			return true
		}
		if !p.take(',') {
			return false
		}
	}
}

func (p *parser) int(out *int) bool {
	p.space()
	start := p.i
	for p.i < len(p.b) && (p.b[p.i] == '-' || p.b[p.i] >= '0' && p.b[p.i] <= '9') {
		p.i++
	}
	n, err := strconv.Atoi(string(p.b[start:p.i]))
	*out = n
	return err == nil
}

func (p *parser) str() (string, bool) {
	if !p.take('"') {
		return "", false
	}
	var out []byte
	for p.i < len(p.b) {
		c := p.b[p.i]
		p.i++
		switch {
		case c == '"':
			return string(out), true
		case c < 0x20:
			return "", false
		case c != '\\':
			out = append(out, c)
			continue
		}
		if p.i == len(p.b) {
			return "", false
		}
		c = p.b[p.i]
		p.i++
		switch c {
		case '"', '\\', '/':
			out = append(out, c)
		case 'n':
			out = append(out, '\n')
		case 't':
			out = append(out, '\t')
		case 'r':
			out = append(out, '\r')
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'u':
			if p.i+4 > len(p.b) {
				return "", false
			}
			n, err := strconv.ParseUint(string(p.b[p.i:p.i+4]), 16, 16)
			if err != nil {
				return "", false
			}
			p.i += 4
			out = utf8.AppendRune(out, rune(n))
		default:
			return "", false
		}
	}
	return "", false
}

// skip passes over a value of a key that this build does not know.
func (p *parser) skip() bool {
	if p.depth++; p.depth > 16 {
		return false
	}
	defer func() { p.depth-- }()
	switch c := p.peek(); {
	case c == '"':
		_, ok := p.str()
		return ok
	case c == '[' || c == '{':
		closing := c + 2
		p.i++
		if p.take(closing) {
			return true
		}
		for {
			if c == '{' {
				if _, ok := p.str(); !ok || !p.take(':') {
					return false
				}
			}
			if !p.skip() {
				return false
			}
			if p.take(closing) {
				return true
			}
			if !p.take(',') {
				return false
			}
		}
	default:
		start := p.i
		for p.i < len(p.b) {
			if c := p.b[p.i]; c == ',' || c == '}' || c == ']' || c <= ' ' {
				break
			}
			p.i++
		}
		return p.i > start
	}
}
