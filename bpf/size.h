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

/*
 * A super-packet stands for segments that each carry the headers again. A tag
 * that the kernel keeps beside the packet is on the wire, too; on the way in
 * that is each outer tag, taken out before the tap runs. jumbo is the length of
 * a header that is in memory only and on no segment.
 */
static __always_inline void measure(struct __sk_buff *skb, __u32 headers, __u32 jumbo, struct size *s)
{
	__u32 gso_size = skb->gso_size;
	__u32 tag = skb->vlan_present ? 4 : 0;

	s->bytes = skb->len + tag;
	s->packets = 1;
	if (!gso_size)
		return;
	s->packets = skb->gso_segs;
	if (!s->packets && skb->len > headers) /* the driver left it out */
		s->packets = (skb->len - headers + gso_size - 1) / gso_size;
	if (s->packets <= 1) {
		s->packets = 1;
		return;
	}
	s->seg_packets = s->packets - 1;
	s->seg_bytes = s->seg_packets * headers;
	/* On egress the kernel has worked it out, since 6.17 with the inner
	 * headers of a tunnel. */
	if (skb->wire_len > skb->len + s->seg_bytes)
		s->seg_bytes = skb->wire_len - skb->len;
	s->seg_bytes += s->seg_packets * tag;
	s->bytes += s->seg_bytes;
	/* As the kernel tells it from a jumbogram. The device counts it once. */
	if (unlikely(jumbo) && skb->len > 65536) {
		s->bytes -= s->packets * jumbo;
		s->seg_bytes -= s->packets * jumbo;
	}
}

#endif
