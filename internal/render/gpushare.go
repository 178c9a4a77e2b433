// SPDX-License-Identifier: Apache-2.0

package render

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// reading is a number that may not be known, or not exactly.
type reading struct {
	value     float64
	known     bool
	estimated bool
	// A part of the sum is not known: there is at least this much.
	atLeast bool
}

// sumOf adds up what is known of shares.
func sumOf(shares []*orb8v1.GpuShare, of func(*orb8v1.GpuShare) *float64) (sum reading) {
	for _, s := range shares {
		v := number(of(s))
		if v == nil {
			sum.atLeast = true
			continue
		}
		sum.value += *v
		sum.known = true
		sum.estimated = sum.estimated || s.GetEstimated()
	}
	return sum
}

// meanOf is over the devices of which it is known: the containers of a pod share
// one, and the shares of a device add up.
func meanOf(shares []*orb8v1.GpuShare, of func(*orb8v1.GpuShare) *float64) reading {
	devices := map[string]bool{}
	for _, s := range shares {
		if number(of(s)) != nil {
			devices[s.GetUuid()] = true
		}
	}
	mean := sumOf(shares, of)
	mean.value /= float64(max(len(devices), 1))
	mean.atLeast = false
	return mean
}

// smOrBusy: GPUs before Hopper tell only whether a kernel ran.
func smOrBusy(s *orb8v1.GpuShare) *float64 {
	if s.Sm != nil {
		return s.Sm
	}
	return s.Busy
}

// number is nil for what is none, and for what no device has.
func number(v *float64) *float64 {
	if v == nil || math.IsNaN(*v) || math.Abs(*v) > 1e18 {
		return nil
	}
	return v
}

func measured(v *float64) reading {
	if v = number(v); v == nil {
		return reading{}
	}
	return reading{value: *v, known: true}
}

func counted(n *uint64) reading {
	if n == nil {
		return reading{}
	}
	return reading{value: float64(*n), known: true}
}

// shown is a number after what there is to say of it.
func (r reading) shown(number string) cell {
	switch {
	case !r.known:
		return cell{}
	case r.atLeast:
		number = "≥" + number
	case r.estimated:
		number = "~" + number
	}
	return cell{text: number}
}

func (s Style) ratio(r reading) cell {
	if s.Human {
		return r.shown(percent(r.value))
	}
	return r.shown(strconv.FormatFloat(r.value, 'g', 4, 64))
}

func (s Style) amount(r reading) cell {
	if s.Human {
		return r.shown(Bytes(uint64(max(r.value, 0))))
	}
	return r.shown(strconv.FormatUint(uint64(max(r.value, 0)), 10))
}

// quantity has its unit for people, and all digits that say something for programs.
func (s Style) quantity(r reading, unit string) cell {
	if s.Human {
		return r.shown(strconv.FormatFloat(r.value, 'f', 0, 64) + unit)
	}
	return r.shown(strconv.FormatFloat(math.Round(r.value*1000)/1000, 'f', -1, 64))
}

func (r gpuRow) memory() cell {
	sum := sumOf(r.holder.GetShares(), func(s *orb8v1.GpuShare) *float64 {
		if s.MemoryBytes == nil {
			return nil
		}
		return new(float64(*s.MemoryBytes))
	})
	sum.estimated = false // it never is
	return r.style.amount(sum)
}

// memoryTotal is what its devices have, where all of them are known.
func (r gpuRow) memoryTotal() cell {
	total, seen := reading{}, map[string]bool{}
	for _, s := range r.holder.GetShares() {
		if seen[s.GetUuid()] {
			continue
		}
		seen[s.GetUuid()] = true
		of := r.known[s.GetUuid()].GetSample()
		if of == nil || of.MemoryTotalBytes == nil {
			return cell{}
		}
		total.value += float64(of.GetMemoryTotalBytes())
		total.known = true
	}
	return r.style.amount(total)
}

func (r gpuRow) power() cell {
	sum := sumOf(r.holder.GetShares(), func(s *orb8v1.GpuShare) *float64 { return s.PowerWatts })
	for _, s := range r.holder.GetShares() {
		sum.estimated = sum.estimated || s.GetPowerEstimated() && number(s.PowerWatts) != nil
	}
	return r.style.quantity(sum, "W")
}

func (r gpuRow) network(of func(*orb8v1.Traffic) uint64) cell {
	ns := r.holder.GetEndNs() - r.holder.GetStartNs()
	if r.holder.GetNetwork() == nil || ns <= 0 {
		return cell{}
	}
	return r.style.amount(reading{value: float64(of(r.holder.GetNetwork())) / float64(ns) * 1e9, known: true})
}

// rdmaUse: what a device moves that others may use, too, is no more than an estimate.
func (r gpuRow) rdmaUse(of func(*orb8v1.Traffic) uint64) cell {
	u := r.holder.GetRdma()
	ns := r.holder.GetEndNs() - r.holder.GetStartNs()
	switch {
	case u.GetMoved() != nil && ns > 0:
		return r.style.amount(reading{value: float64(of(u.GetMoved())) / float64(ns) * 1e9, known: true, estimated: u.GetShared()})
	case u.GetShared():
		return cell{"shared", dim}
	}
	return cell{}
}

func (r gpuRow) retransmits() cell {
	if r.holder.GetNetwork() == nil {
		return cell{}
	}
	c := r.style.count(r.holder.GetRetransmits())
	if r.holder.GetRetransmits() > 0 {
		c.tone = yellow
	}
	return c
}

func holderState(state string) cell {
	switch state {
	case "active":
		return cell{state, green}
	case "idle", "busy-waiting":
		return cell{state, yellow}
	case "hung", "lost":
		return cell{state, red}
	}
	return cell{text: state}
}

// gpuList is which devices: 0-3,5 and, of instances, 6/1g.10gb.
func gpuList(shares []*orb8v1.GpuShare) string {
	type instances struct {
		index   uint32
		profile string
	}
	seen, counts := map[string]bool{}, map[instances]int{}
	var whole []uint32
	var divided []instances
	for _, s := range shares {
		if seen[s.GetUuid()] {
			continue
		}
		seen[s.GetUuid()] = true
		if s.GetProfile() == "" {
			whole = append(whole, s.GetIndex())
			continue
		}
		i := instances{s.GetIndex(), s.GetProfile()}
		if counts[i]++; counts[i] == 1 {
			divided = append(divided, i)
		}
	}
	slices.SortFunc(divided, func(a, b instances) int {
		return cmp.Or(cmp.Compare(a.index, b.index), strings.Compare(a.profile, b.profile))
	})
	list := ranges(whole)
	for _, i := range divided {
		text := fmt.Sprintf("%d/%s", i.index, i.profile)
		if counts[i] > 1 {
			text += fmt.Sprintf("×%d", counts[i])
		}
		list = append(list, text)
	}
	return strings.Join(list, ",")
}

// ranges puts 0, 1, 2, 5 as 0-2, 5.
func ranges(numbers []uint32) (list []string) {
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		text := strconv.FormatUint(uint64(numbers[i]), 10)
		if j > i {
			text += "-" + strconv.FormatUint(uint64(numbers[j]), 10)
		}
		list = append(list, text)
		i = j + 1
	}
	return list
}

// distinct are the words of shares, each once.
func distinct(shares []*orb8v1.GpuShare, of func(*orb8v1.GpuShare) string) string {
	var list []string
	for _, s := range shares {
		if w := of(s); w != "" && !slices.Contains(list, w) {
			list = append(list, w)
		}
	}
	return words(list)
}

func words(list []string) string { return strings.Join(list, ",") }

func (r gpuRow) containers() string {
	return distinct(r.holder.GetShares(), func(s *orb8v1.GpuShare) string { return s.GetContainer() })
}

func (r gpuRow) pids() string {
	var list []string
	for _, s := range r.holder.GetShares() {
		for _, pid := range s.GetPids() {
			if text := strconv.FormatUint(uint64(pid), 10); !slices.Contains(list, text) {
				list = append(list, text)
			}
		}
	}
	return words(list)
}

// findingTexts are the sentences of findings.
func findingTexts(findings []*orb8v1.GpuFinding) string {
	var list []string
	for _, f := range findings {
		list = append(list, findingText(f))
	}
	return strings.Join(list, "; ")
}

// findingText is never empty.
func findingText(f *orb8v1.GpuFinding) string {
	if f.GetText() != "" {
		return f.GetText()
	}
	return cmp.Or(f.GetKind(), "unknown")
}
