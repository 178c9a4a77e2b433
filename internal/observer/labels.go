// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orb8/orb8/internal/filter"
)

// kept refuses a filter by labels that the agent was not told to keep: whatever
// it answered would be wrong for the pods that have them.
func (o *Observer) kept(lists ...[]filter.Label) error {
	if slices.Contains(o.labels, "*") {
		return nil
	}
	for _, list := range lists {
		for _, l := range list {
			if !slices.Contains(o.labels, l.Key) {
				return status.Error(codes.InvalidArgument, fmt.Sprintf("labels: the agent does not keep %q: add it to its ORB8_POD_LABELS, or filter by one of %s",
					l.Key, strings.Join(o.labels, ", ")))
			}
		}
	}
	return nil
}

func (o *Observer) keptOf(f *filter.Filter) error {
	in, ex := &f.Include, &f.Exclude
	return o.kept(in.Labels, in.From.Labels, in.To.Labels, ex.Labels, ex.From.Labels, ex.To.Labels)
}
