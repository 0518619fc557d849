package rewrite

import (
	"context"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/filters/internal/check"
	"gatehouse.dev/gatehouse/filters/pathmod"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

type filter struct {
	hostname string
	path     *pathmod.Modifier
}

func compile(c Config) (*filter, error) {
	if c.Hostname != "" {
		if err := check.Hostname(c.Hostname); err != nil {
			return nil, err
		}
	}
	path, err := pathmod.Compile(c.Path)
	if err != nil {
		return nil, err
	}
	return &filter{hostname: c.Hostname, path: path}, nil
}

// OnRequest changes the request's authority and path. What Gateway API matched stays matched: the rule was chosen before.
func (f *filter) OnRequest(_ context.Context, x *exchange.Exchange) (filters.Action, error) {
	if f.hostname != "" {
		x.Req.Authority = f.hostname
	}
	if f.path != nil {
		x.Req.SetPath(f.path.Apply(x.Req.Path()))
	}
	return filters.Continue, nil
}

// OnResponse does nothing: a Location that the backend writes is its own affair.
func (*filter) OnResponse(*exchange.Exchange) {}
