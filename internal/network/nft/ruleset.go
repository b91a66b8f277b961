package nft

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Ruleset is (a part of) one table of family inet.
type Ruleset struct {
	Table  string
	Sets   []Set
	Chains []Chain
}

// Set is a set, or a map if it has Data.
type Set struct {
	Name string
	// Key and Data are the parts of a concatenation, or one type.
	Key, Data []datum
	// Interval says that the elements are ranges of addresses.
	Interval bool
	Elements []Element
}

// Element is one entry of a Set.
type Element struct {
	// Key and Data hold netip.Addr, protocol and uint16 (port) values, matching the Set's parts.
	Key, Data []any
	// Range stands in place of Key in a Set with Interval.
	Range netip.Prefix
}

// Chain is a chain with its rules; a base chain if it has a Type.
type Chain struct {
	Name     string
	Type     nftables.ChainType
	Hook     *nftables.ChainHook
	Priority *nftables.ChainPriority
	Rules    []Rule
}

// Rule is one rule, both as the kernel takes it and as nft(8) writes it.
type Rule struct {
	Text  string
	Exprs []expr.Any
}

// part is a piece of a Rule.
type part struct {
	text  string
	exprs []expr.Any
}

func rule(parts ...part) Rule {
	var r Rule
	var texts []string
	for _, p := range parts {
		texts = append(texts, p.text)
		r.Exprs = append(r.Exprs, p.exprs...)
	}
	r.Text = strings.Join(texts, " ")
	return r
}

// String writes the table as nft(8) would list it.
func (rs Ruleset) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n", rs.Table)
	for _, s := range rs.Sets {
		b.WriteString(s.String())
	}
	for _, c := range rs.Chains {
		fmt.Fprintf(&b, "\tchain %s {\n", c.Name)
		if c.Type != "" {
			fmt.Fprintf(&b, "\t\ttype %s hook %s priority %d; policy accept;\n", c.Type, hookName(c.Hook), *c.Priority)
		}
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "\t\t%s\n", r.Text)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// String writes the set as nft(8) would list it.
func (s Set) String() string {
	var b strings.Builder
	kind, typ := "set", typeNames(s.Key)
	if s.Data != nil {
		kind, typ = "map", typ+" : "+typeNames(s.Data)
	}
	fmt.Fprintf(&b, "\t%s %s {\n\t\ttype %s\n", kind, s.Name, typ)
	if s.Interval {
		b.WriteString("\t\tflags interval\n")
	}
	for _, e := range s.Elements {
		text := e.Range.String()
		if !s.Interval {
			text = join(e.Key)
		}
		if s.Data != nil {
			text += " : " + join(e.Data)
		}
		fmt.Fprintf(&b, "\t\telement %s\n", text)
	}
	b.WriteString("\t}\n")
	return b.String()
}

func join(values []any) string {
	var texts []string
	for _, v := range values {
		texts = append(texts, strings.ToLower(fmt.Sprint(v)))
	}
	return strings.Join(texts, " . ")
}

func typeNames(data []datum) string {
	var names []string
	for _, d := range data {
		names = append(names, d.typ.Name)
	}
	return strings.Join(names, " . ")
}

func hookName(h *nftables.ChainHook) string {
	switch *h {
	case *nftables.ChainHookPrerouting:
		return "prerouting"
	case *nftables.ChainHookOutput:
		return "output"
	case *nftables.ChainHookPostrouting:
		return "postrouting"
	case *nftables.ChainHookForward:
		return "forward"
	default:
		return "input"
	}
}
