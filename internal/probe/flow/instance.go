// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// etherHeader is the length of an Ethernet header.
const etherHeader = 14

// instance is the tap's programs with one set of constants: the namespace and
// the length of the link-layer header cost nothing per packet this way. All
// instances share the maps.
type instance struct {
	objs kernelPrograms
}

// program returns the instance for a link-layer header length, loading it at
// the first use. Callers hold mu, except in Open.
func (t *Tap) program(linkHeader uint32) (*instance, error) {
	if p, ok := t.programs[linkHeader]; ok {
		return p, nil
	}
	spec, err := loadKernel()
	if err != nil {
		return nil, err
	}
	spec.Maps["flow_active"].InnerMap.MaxEntries = uint32(t.cfg.TableEntries)
	for name, value := range map[string]uint32{"netns": t.netns, "link_header": linkHeader} {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	p := &instance{}
	err = spec.LoadAndAssign(&p.objs, &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		"flow_active":    t.outer,
		"flow_rest":      t.rest,
		"flow_rest_lost": t.lost,
	}})
	if err != nil {
		return nil, fmt.Errorf("load programs: %w", err)
	}
	t.programs[linkHeader] = p
	return p, nil
}
