package filters

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// Set is the filters that this program was built with, by kind. It is immutable.
type Set struct {
	specs map[string]Spec
}

// NewSet returns a Set of the given specs; two of one kind are an error.
func NewSet(specs ...Spec) (*Set, error) {
	s := &Set{specs: make(map[string]Spec, len(specs))}
	for _, spec := range specs {
		if _, dup := s.specs[spec.Kind]; dup {
			return nil, fmt.Errorf("filter kind %q is listed twice", spec.Kind)
		}
		s.specs[spec.Kind] = spec
	}
	return s, nil
}

// Validate reports what is wrong with one policy.
func (s *Set) Validate(kind string, payload []byte) error {
	spec, ok := s.specs[kind]
	if !ok {
		return fmt.Errorf("filter kind %q is not known to this gateway", kind)
	}
	if err := spec.Validate(payload); err != nil {
		return fmt.Errorf("filter %s: %w", kind, err)
	}
	return nil
}

// Describe says in a few words what a policy does.
func (s *Set) Describe(kind string, payload []byte) string {
	if spec, ok := s.specs[kind]; ok && spec.Describe != nil {
		return spec.Describe(payload)
	}
	return ""
}

// Item is one policy to compile.
type Item struct {
	Kind    string
	Payload []byte
}

// Chain is compiled filters in the order they run. The zero Chain does nothing.
type Chain struct {
	filters []Filter
}

// Clusters returns the names of the clusters that a policy sends requests to; nil for one that does not open.
func (s *Set) Clusters(kind string, payload []byte) []string {
	if spec, ok := s.specs[kind]; ok && spec.Clusters != nil {
		return spec.Clusters(payload)
	}
	return nil
}

// Compile builds the filters of one rule or backend, ordered by phase. b numbers the slots: chains that may run in one exchange
// share it.
func (s *Set) Compile(items []Item, b *Builder) (Chain, error) {
	list, err := s.build(items, b)
	if err != nil {
		return Chain{}, err
	}
	slices.SortStableFunc(list, func(a, b built) int { return cmp.Compare(a.phase, b.phase) })
	return chainOf(list), nil
}

// CompileInOrder builds the filters of a listener, which run in the order of the list whatever their phases are (Gateway API:
// ListenerFilters.requests). Its slots never meet those of other chains.
func (s *Set) CompileInOrder(items []Item) (Chain, error) {
	list, err := s.build(items, &Builder{listener: true})
	if err != nil {
		return Chain{}, err
	}
	for i := range list {
		list[i].filter = sameHost{list[i].filter}
	}
	return chainOf(list), nil
}

// sameHost is a filter of a listener. Which listener serves the request is settled: what the filter does to the authority takes no effect
// (Gateway API: ListenerFilters.requests).
type sameHost struct{ Filter }

func (f sameHost) OnRequest(ctx context.Context, x *exchange.Exchange) (Action, error) {
	authority := x.Req.Authority
	action, err := f.Filter.OnRequest(ctx, x)
	x.Req.Authority = authority
	x.Req.Fields.DelID(exchange.Host)
	return action, err
}

// built is a filter of a chain to be.
type built struct {
	phase  Phase
	filter Filter
}

func chainOf(list []built) Chain {
	chain := Chain{}
	for _, b := range list {
		chain.filters = append(chain.filters, b.filter)
	}
	return chain
}

func (s *Set) build(items []Item, b *Builder) ([]built, error) {
	list := make([]built, 0, len(items))
	for _, item := range items {
		spec, ok := s.specs[item.Kind]
		if !ok {
			return nil, fmt.Errorf("filter kind %q is not known to this gateway", item.Kind)
		}
		f, err := spec.Build(item.Payload, b)
		if err != nil {
			return nil, fmt.Errorf("filter %s: %w", item.Kind, err)
		}
		list = append(list, built{spec.Phase, f})
	}
	return list, nil
}

// OnRequest runs the request side. ran is how many filters took part: the response side runs for these.
func (c Chain) OnRequest(ctx context.Context, x *exchange.Exchange) (action Action, ran int, err error) {
	for i, f := range c.filters {
		action, err := f.OnRequest(ctx, x)
		if err != nil || action == Reply {
			return action, i + 1, err
		}
	}
	return Continue, len(c.filters), nil
}

// OnResponse runs the response side of the first ran filters, last to first.
func (c Chain) OnResponse(x *exchange.Exchange, ran int) {
	for i := ran - 1; i >= 0; i-- {
		c.filters[i].OnResponse(x)
	}
}
