// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/cilium/ebpf"
)

// changed is the tap's programs as another object file has them, to measure a
// change to them beside what they are now.
type changed struct {
	variant
	coll   *ebpf.Collection
	tables [2]*ebpf.Map
	active int
}

func newChanged(path string) (*changed, error) {
	spec, err := ebpf.LoadCollectionSpec(path)
	if err != nil {
		return nil, err
	}
	outer := spec.Maps["flow_active"]
	if outer == nil || outer.InnerMap == nil {
		return nil, fmt.Errorf("%s: not an object of the tap", path)
	}
	outer.InnerMap.MaxEntries = tableEntries
	c := &changed{variant: variant{name: strings.TrimSuffix(filepath.Base(path), ".o")}}
	if c.coll, err = ebpf.NewCollection(spec); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err = c.join(); err != nil {
		c.close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	c.ingress, c.egress = c.coll.Programs["flow_ingress"], c.coll.Programs["flow_egress"]
	if c.ingress == nil || c.egress == nil {
		c.close()
		return nil, fmt.Errorf("%s: not an object of the tap", path)
	}
	for i := range c.tables {
		if c.tables[i], err = ebpf.NewMap(outer.InnerMap.Copy()); err != nil {
			c.close()
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	c.forget = c.epoch
	return c, c.epoch()
}

// join gives the short way its long way, where the object has them apart.
func (c *changed) join() error {
	rare := c.coll.Maps["flow_rare"]
	if rare == nil {
		return nil
	}
	for dir, name := range []string{"flow_rare_ingress", "flow_rare_egress"} {
		p := c.coll.Programs[name]
		if p == nil {
			return fmt.Errorf("no program %s", name)
		}
		if err := rare.Put(uint32(dir), p); err != nil {
			return fmt.Errorf("join programs: %w", err)
		}
	}
	return nil
}

// epoch swaps the tables and empties the old one, whatever its layout.
func (c *changed) epoch() error {
	c.active = 1 - c.active
	if err := c.coll.Maps["flow_active"].Put(uint32(0), c.tables[c.active]); err != nil {
		return fmt.Errorf("swap: %w", err)
	}
	return deleteAll(c.tables[1-c.active])
}

func (c *changed) close() {
	for _, m := range c.tables {
		if m != nil {
			_ = m.Close()
		}
	}
	c.coll.Close()
}

func deleteAll(m *ebpf.Map) error {
	const batch = 4096
	rows := func(size uint32) any {
		row := reflect.ArrayOf(int(size), reflect.TypeFor[byte]())
		return reflect.MakeSlice(reflect.SliceOf(row), batch, batch).Interface()
	}
	keys, values := rows(m.KeySize()), rows(m.ValueSize())
	var cursor ebpf.MapBatchCursor
	for {
		_, err := m.BatchLookupAndDelete(&cursor, keys, values, nil)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("empty %s: %w", m, err)
		}
	}
}
