// SPDX-License-Identifier: Apache-2.0

package accelerator

import "github.com/orb8/orb8/internal/event"

// finder tells what is to be said of one holder's devices.
type finder struct{}

func newFinder(_ *Config) *finder { return &finder{} }

// look is asked once a round; of who has nothing any more, h has no shares: what
// goes on has ended then.
func (f *finder) look(_ *event.GPUHolder, _ *network, _ map[string]*event.GPUSample) (changed []*event.GPUFinding) {
	return nil
}
