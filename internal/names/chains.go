// SPDX-License-Identifier: Apache-2.0

package names

// chains finds places by their hash. Unlike a map it takes no more room when what
// it holds is replaced all the time, and has nothing to scan for the collector.
type chains struct {
	heads []uint32 // as many as a power of two
	links []link   // by the place
	count int
}

type link struct{ hash, next uint32 }

// first gives the first place of a hash, and after the next one; they may be of
// others, too.
func (c *chains) first(hash uint64) uint32 {
	if len(c.heads) == 0 {
		return none
	}
	return *c.head(uint32(hash))
}

func (c *chains) after(i uint32) uint32 { return c.links[i].next }

func (c *chains) head(hash uint32) *uint32 { return &c.heads[int(hash)&(len(c.heads)-1)] }

func (c *chains) put(i uint32, hash uint64) {
	if c.count++; c.count > len(c.heads) {
		c.grow()
	}
	for int(i) >= len(c.links) {
		c.links = append(c.links, link{next: none})
	}
	head := c.head(uint32(hash))
	c.links[i] = link{uint32(hash), *head}
	*head = i
}

func (c *chains) take(i uint32) {
	c.count--
	at := c.head(c.links[i].hash)
	for *at != i {
		at = &c.links[*at].next
	}
	*at = c.links[i].next
}

func (c *chains) grow() {
	old := c.heads
	c.heads = make([]uint32, max(1024, 2*len(old)))
	for i := range c.heads {
		c.heads[i] = none
	}
	for _, i := range old {
		for i != none {
			next := c.links[i].next
			head := c.head(c.links[i].hash)
			c.links[i].next, *head = *head, i
			i = next
		}
	}
}
