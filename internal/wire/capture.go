// SPDX-License-Identifier: Apache-2.0

package wire

import (
	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
)

// CaptureInterface is one that packets are captured at.
type CaptureInterface struct {
	Number uint32
	event.Iface
	Place
	// Whose namespace it is in.
	Owner    *event.Identity
	LinkType uint32
	Snaplen  uint32
}

// CaptureInterface puts it into its message. It may be younger than the Source.
func (s *Source) CaptureInterface(i *CaptureInterface) *pb.CaptureInterface {
	return &pb.CaptureInterface{
		Number: i.Number,
		Node:   Text(s.Node),
		Tap: &pb.Tap{
			Netns: uint64(i.Netns), Ifindex: i.Index,
			Interface: Text(i.Name), Namespace: Text(i.Namespace),
		},
		Owner:    owner(i.Owner),
		LinkType: i.LinkType,
		Snaplen:  i.Snaplen,
	}
}

// owner is an end of which there is no address.
func owner(id *event.Identity) *pb.End {
	e := end(event.IP{}, id)
	e.Ip = ""
	return e
}
