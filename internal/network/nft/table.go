package nft

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"
)

// batch is how many elements go into one message: an attribute of netlink holds 64 KiB.
const batch = 512

// Apply makes the kernel's table hold what rs says, in one transaction: packets see the old rules or the new ones. Chains and
// sets that rs does not name stay. It works in the network namespace of the calling thread.
func Apply(rs Ruleset) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: rs.Table})
	if err := addSets(conn, table, rs.Sets); err != nil {
		return fmt.Errorf("apply rules to table %s: %w", rs.Table, err)
	}
	for _, c := range rs.Chains {
		chain := conn.AddChain(&nftables.Chain{Name: c.Name, Table: table, Type: c.Type, Hooknum: c.Hook, Priority: c.Priority})
		conn.FlushChain(chain)
	}
	for _, c := range rs.Chains {
		for _, r := range c.Rules {
			conn.AddRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Name: c.Name, Table: table}, Exprs: r.Exprs})
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("apply rules to table %s: %w", rs.Table, err)
	}
	return nil
}

// Add adds the elements of rs to the sets of the table, but for those of ranges, and leaves the rest alone. Elements that are there already are
// no error. It is ENOENT if table or sets are not there, EEXIST if an element maps to something else.
func Add(rs Ruleset) error { return change(rs, (*nftables.Conn).SetAddElements) }

// Remove removes them. It is ENOENT if one of them is not there; then none is removed.
func Remove(rs Ruleset) error { return change(rs, (*nftables.Conn).SetDeleteElements) }

func change(rs Ruleset, what func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: rs.Table}
	changes := false
	for _, s := range rs.Sets {
		if s.Interval || len(s.Elements) == 0 {
			continue
		}
		set, err := s.set(table, 0)
		if err != nil {
			return err
		}
		if err := what(conn, set, s.encode()); err != nil {
			return fmt.Errorf("elements of set %s: %w", s.Name, err)
		}
		changes = true
	}
	if !changes {
		return nil
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("change elements of table %s: %w", rs.Table, err)
	}
	return nil
}

// Delete removes the table with all that is in it. A table that is not there is no error.
func Delete(name string) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	conn.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: name})
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete table %s: %w", name, err)
	}
	return nil
}

func addSets(conn *nftables.Conn, table *nftables.Table, sets []Set) error {
	for i, s := range sets {
		// The library numbers sets from a variable of its own that is not safe for concurrent use, unless told.
		set, err := s.set(table, uint32(i+1))
		if err != nil {
			return err
		}
		if err := conn.AddSet(set, nil); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
		}
		conn.FlushSet(set)
		elements := s.encode()
		for len(elements) > 0 {
			n := min(batch, len(elements))
			if err := conn.SetAddElements(set, elements[:n]); err != nil {
				return fmt.Errorf("elements of set %s: %w", s.Name, err)
			}
			elements = elements[n:]
		}
	}
	return nil
}

func (s Set) set(table *nftables.Table, id uint32) (set *nftables.Set, err error) {
	set = &nftables.Set{Table: table, ID: id, Name: s.Name, IsMap: s.Data != nil, Interval: s.Interval, KeyByteOrder: binaryutil.BigEndian}
	if set.KeyType, err = datatype(s.Key); err != nil {
		return nil, err
	}
	if s.Data != nil {
		set.DataType, err = datatype(s.Data)
	}
	return set, err
}

func datatype(parts []datum) (nftables.SetDatatype, error) {
	if len(parts) == 1 {
		return parts[0].typ, nil
	}
	types := make([]nftables.SetDatatype, 0, len(parts))
	for _, p := range parts {
		types = append(types, p.typ)
	}
	return nftables.ConcatSetType(types...)
}

// encode turns the elements into the kernel's form; a range is its first address and the one after its last.
func (s Set) encode() []nftables.SetElement {
	var out []nftables.SetElement
	for _, e := range s.Elements {
		if !s.Interval {
			out = append(out, nftables.SetElement{Key: encode(e.Key), Val: encode(e.Data)})
			continue
		}
		out = append(out, nftables.SetElement{Key: e.Range.Addr().AsSlice()})
		if end := afterRange(e.Range); end.IsValid() {
			out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}
