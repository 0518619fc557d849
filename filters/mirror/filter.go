package mirror

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// filter mirrors numerator of denominator requests, each by its own draw.
type filter struct {
	cluster     string
	numerator   int32
	denominator int32
	// draw returns a number in [0, n); tests replace it.
	draw func(n int32) int32
}

func compile(c Config) (*filter, error) {
	f := &filter{cluster: c.Cluster, numerator: 1, denominator: 1, draw: rand.Int32N}
	switch {
	case c.Cluster == "" && c.Invalid == "":
		return nil, errors.New("cluster is empty: name the cluster that gets the copies, or say in invalid why there is none")
	case c.Cluster != "" && c.Invalid != "":
		return nil, errors.New("cluster and invalid are both set: leave one out")
	case c.Percent != nil && c.Fraction != nil:
		return nil, errors.New("percent and fraction are both set: leave one out")
	case c.Percent != nil:
		f.numerator, f.denominator = *c.Percent, 100
		if *c.Percent < 0 || *c.Percent > 100 {
			return nil, fmt.Errorf("percent %d is not between 0 and 100", *c.Percent)
		}
	case c.Fraction != nil:
		f.numerator, f.denominator = c.Fraction.Numerator, c.Fraction.denominator()
		if f.numerator < 0 || f.denominator < 0 || f.numerator > f.denominator {
			return nil, fmt.Errorf("fraction %d/%d is not between 0 and 1", f.numerator, f.denominator)
		}
	}
	if c.Invalid != "" {
		f.numerator = 0
	}
	return f, nil
}

func (f *Fraction) denominator() int32 {
	if f.Denominator == 0 {
		return 100
	}
	return f.Denominator
}

// OnRequest notes the cluster in the exchange; who sends the request upstream sends the copy.
func (f *filter) OnRequest(_ context.Context, x *exchange.Exchange) (filters.Action, error) {
	if f.numerator == f.denominator || f.numerator > 0 && f.draw(f.denominator) < f.numerator {
		x.Mirrors = append(x.Mirrors, f.cluster)
	}
	return filters.Continue, nil
}

// OnResponse does nothing.
func (*filter) OnResponse(*exchange.Exchange) {}
