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

// Compile builds the filters of one rule or backend, ordered by phase. b numbers the slots: chains that may run in one exchange
// share it.
func (s *Set) Compile(items []Item, b *Builder) (Chain, error) {
	type built struct {
		phase  Phase
		filter Filter
	}
	list := make([]built, 0, len(items))
	for _, item := range items {
		spec, ok := s.specs[item.Kind]
		if !ok {
			return Chain{}, fmt.Errorf("filter kind %q is not known to this gateway", item.Kind)
		}
		f, err := spec.Build(item.Payload, b)
		if err != nil {
			return Chain{}, fmt.Errorf("filter %s: %w", item.Kind, err)
		}
		list = append(list, built{spec.Phase, f})
	}
	slices.SortStableFunc(list, func(a, b built) int { return cmp.Compare(a.phase, b.phase) })
	chain := Chain{}
	for _, b := range list {
		chain.filters = append(chain.filters, b.filter)
	}
	return chain, nil
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
