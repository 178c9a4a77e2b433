/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a packet weighs on the wire. Shared by the kernel programs: no programs,
 * no maps.
 */
#ifndef ORB8_SIZE_H
#define ORB8_SIZE_H

#include "packet.h"

struct size {
	__u64 bytes, packets; /* on the wire */
	__u64 seg_bytes, seg_packets; /* of it, more than the device saw */
};

/* What measure wants to know of a packet's memory. */
static __always_inline __u32 hidden(const struct packet *p)
{
	return p->jumbo | p->outer << 8;
}

/*
 * A super-packet stands for segments that each carry the headers again. A tag
 * that the kernel keeps beside the packet is on the wire, too; on the way in
 * that is each outer tag, taken out before the tap runs. hidden is what is in
 * memory only: in its low byte BIG TCP's header, which is on no segment, above
 * it what stands before the packet, which the device does not see either.
 */
static __always_inline void measure(struct __sk_buff *skb, __u32 headers, __u32 hidden, struct size *s)
{
	__u32 gso_size = skb->gso_size, jumbo = hidden & 0xff, outer = hidden >> 8;
	__u32 tag = skb->vlan_present ? 4 : 0, len = skb->len - outer;

	s->bytes = len + tag;
	s->packets = 1;
	if (!gso_size)
		return;
	s->packets = skb->gso_segs;
	if (!s->packets && len > headers) /* the driver left it out */
		s->packets = (len - headers + gso_size - 1) / gso_size;
	if (s->packets <= 1) {
		s->packets = 1;
		return;
	}
	s->seg_packets = s->packets - 1;
	s->seg_bytes = s->seg_packets * headers;
	/* On egress the kernel has worked it out, since 6.17 with the inner
	 * headers of a tunnel. */
	if (skb->wire_len > skb->len + s->seg_bytes + s->seg_packets * outer)
		s->seg_bytes = skb->wire_len - skb->len - s->seg_packets * outer;
	s->seg_bytes += s->seg_packets * tag;
	s->bytes += s->seg_bytes;
	/* As the kernel tells it from a jumbogram. The device counts it once. */
	if (unlikely(jumbo) && len > 65536) {
		s->bytes -= s->packets * jumbo;
		s->seg_bytes -= s->packets * jumbo;
	}
}

#endif
