// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"context"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
)

// tells refuses who would follow only what is not told here, and never hear of it.
func (o *Observer) tells(ctx context.Context, kinds []event.Kind) (refusal error) {
	for _, k := range kinds {
		err := o.told(ctx, k)
		if err == nil {
			return nil
		}
		refusal = err
	}
	return refusal
}

// told gives the error that says why a kind of events is not told.
func (o *Observer) told(ctx context.Context, k event.Kind) error {
	switch k {
	case event.KindDrop:
		got, err := o.node.Drops(ctx, filter.Filter{}, 0)
		switch {
		case err != nil:
			return fault(err)
		case got.Start.IsZero():
			return errDropsNotTold
		}
	case event.KindDNS:
		got, err := o.node.Dns(ctx, filter.Filter{}, nil, 0)
		switch {
		case err != nil:
			return fault(err)
		case got.Start.IsZero():
			return errLookupsNotTold
		}
	}
	return nil
}
