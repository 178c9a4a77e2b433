// SPDX-License-Identifier: Apache-2.0

package rdma

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func attr(kind uint16, value ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(attrHeaderLen+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func u32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func join(list ...[]byte) (b []byte) {
	for _, part := range list {
		b = append(b, part...)
	}
	return b
}

func message(kind uint16, seq uint32, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(headerLen+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_MULTI)
	b = append(append(b, u32(seq)...), u32(0)...)
	return append(b, body...)
}

// pairsAnswer is that of a kernel: a process's queue pairs, the kernel's own, and
// one of a process that ends.
func pairsAnswer() []byte {
	const nested = 1 << 15
	entry := func(parts ...[]byte) []byte { return attr(attrResQPEntry|nested, join(parts...)...) }
	lqpn := attr(21, u32(17)...)
	return join(
		attr(attrDeviceIndex, u32(3)...),
		attr(attrDeviceName, []byte("mlx5_3\x00")...),
		attr(attrResQP|nested, join(
			entry(lqpn, attr(attrResPID, u32(4321)...), attr(26, 2)),
			entry(lqpn, attr(attrResKernel, []byte("ib_core\x00")...)),
			entry(lqpn),
			entry(lqpn, attr(attrResPID, u32(77)...)),
		)...),
	)
}

func TestAnswers(t *testing.T) {
	body := pairsAnswer()
	if name, index, err := deviceIndex(body); name != "mlx5_3" || index != 3 || err != nil {
		t.Errorf("%q, %d, %v", name, index, err)
	}
	dump := join(
		message(cmdResQP, 9, attr(99)), // of an earlier question
		message(cmdResQP, 8, body),
		message(cmdResQP, 8, body),
		message(unix.NLMSG_DONE, 8, u32(0)),
	)
	var pids []uint32
	done, err := messages(dump, cmdResQP, 8, func(b []byte) error {
		return pairPIDs(b, func(pid uint32) { pids = append(pids, pid) })
	})
	if diff := cmp.Diff([]uint32{4321, 77, 4321, 77}, pids); diff != "" || !done || err != nil {
		t.Errorf("%s %v %v", diff, done, err)
	}
	none := func([]byte) error { return nil }
	if _, err := messages(message(unix.NLMSG_ERROR, 8, u32(^uint32(21))), cmdResQP, 8, none); !errors.Is(err, unix.EINVAL) {
		t.Errorf("EINVAL: %v", err)
	}
	for name, cut := range map[string][]byte{
		"header": dump[:10], "message": dump[:len(dump)-1], "length": join(u32(3), make([]byte, 20)),
	} {
		if _, err := messages(cut, cmdResQP, 8, none); !errors.Is(err, errCut) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := pairPIDs(body[:len(body)-4], func(uint32) {}); !errors.Is(err, errCut) {
		t.Errorf("attribute: %v", err)
	}
}

func TestRequests(t *testing.T) {
	index := uint32(5)
	want := join(u32(24), []byte{0x0a, 0x14, 1, 3}, u32(2), u32(0), []byte{8, 0, 1, 0}, u32(5))
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("written for little-endian machines")
	}
	if diff := cmp.Diff(want, request(cmdResQP, 2, &index)); diff != "" {
		t.Error(diff)
	}
	if n := len(request(cmdGet, 1, nil)); n != headerLen {
		t.Errorf("%d bytes", n)
	}
}

// A kernel without RDMA has no such socket, and one with it lists its devices.
func TestTheKernel(t *testing.T) {
	if _, err := askPairs("no such device"); err == nil {
		t.Error("it has queue pairs")
	} else {
		t.Log(err)
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add(message(cmdResQP, 1, pairsAnswer()))
	f.Add(join(message(cmdGet, 1, pairsAnswer()), message(unix.NLMSG_DONE, 1, u32(0))))
	f.Add(message(unix.NLMSG_ERROR, 1, u32(^uint32(0))))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, command := range []uint16{cmdGet, cmdResQP} {
			n := 0
			_, err := messages(b, command, 1, func(body []byte) error {
				_, _, err := deviceIndex(body)
				return errors.Join(err, pairPIDs(body, func(pid uint32) {
					if n++; pid == 0 {
						t.Error("process 0")
					}
				}))
			})
			if n > len(b)/8 {
				t.Errorf("%d queue pairs in %d bytes, %v", n, len(b), err)
			}
		}
	})
}

func FuzzWords(f *testing.F) {
	f.Add("400 Gb/sec (4X NDR)", "../../devices/pci0000:00/0000:1b:00.0/infiniband/mlx5_0")
	f.Add("4: ACTIVE", "0000:1b:00.0")
	f.Fuzz(func(t *testing.T, word, link string) {
		if r := bitRate(word); r > 1e15 {
			t.Errorf("%q: %d", word, r)
		}
		afterColon(word)
		if a := pciOf(link); a != "" && !isPCI(a) {
			t.Errorf("%q: %q", link, a)
		}
	})
}
