// Package filters is how the gateway changes, answers or watches an exchange on its way. A filter is a package below this one
// (or below auth) with a Config, a Spec and a Filter; cmd lists the Specs explicitly, a Set knows them by kind, and a Chain is the
// compiled list of one rule or backend.
//
// Order: the filters of a chain run by Phase on the request side, in the listed order within a phase, and in reverse on the
// response side. A filter that answers by itself stops the request side; the response side then runs for it and those before it.
package filters

import (
	"context"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// Phase fixes the order of filters whatever the order in the object.
type Phase uint8

// The phases, first to last on the request side.
const (
	// PhaseCORS answers preflight requests, which carry no credentials, before anything asks for them.
	PhaseCORS Phase = iota
	// PhaseAuthenticate establishes who asks.
	PhaseAuthenticate
	// PhaseAuthorize decides whether they may.
	PhaseAuthorize
	// PhaseRateLimit counts those who may.
	PhaseRateLimit
	// PhaseTransform changes headers.
	PhaseTransform
	// PhaseRedirect answers with another place to go.
	PhaseRedirect
	// PhaseRewrite changes host and path for the upstream.
	PhaseRewrite
	// PhaseMirror copies the request as it will be sent.
	PhaseMirror
)

// Action is what a filter decided about a request.
type Action uint8

// The actions of OnRequest.
const (
	// Continue lets the request go on.
	Continue Action = iota
	// Reply sends Exchange.Resp and RespBody, which the filter filled, to the client.
	Reply
)

// Filter is one compiled filter. It is shared by all exchanges of its rule and must be safe for concurrent use.
type Filter interface {
	// OnRequest runs before the request goes upstream. An error becomes a Fault: a *exchange.Fault as it is, any other as
	// FilterFailed.
	OnRequest(ctx context.Context, x *exchange.Exchange) (Action, error)
	// OnResponse runs when the response head is known, before it goes to the client.
	OnResponse(x *exchange.Exchange)
}

// Spec describes a kind of filter.
type Spec struct {
	// Kind is the stable name that config.Policy carries.
	Kind  string
	Phase Phase
	// Validate reports what is wrong with a payload, without building anything. It is what translators and `validate` call.
	Validate func(payload []byte) error
	// Build makes the filter.
	Build func(payload []byte, b *Builder) (Filter, error)
	// Clusters names the clusters that the filter sends requests to; nil for a kind that sends none. The settings name each of them in a
	// field "cluster", by which whoever cannot open them finds it.
	Clusters func(payload []byte) []string
	// Describe says in a few words what this payload does, for `gatehouse explain`: "set x-env: prod".
	Describe func(payload []byte) string
}

// Builder is what a filter gets while it is built.
type Builder struct {
	slots int
	// listener is set for the filters of a listener, which run in one exchange with any rule's: theirs are the odd slots.
	listener bool
}

// Slot is a filter's own place in Exchange.Slots, typed.
type Slot[T any] struct{ index int }

// NewSlot reserves a slot in the exchanges that the chain being built will see.
func NewSlot[T any](b *Builder) Slot[T] {
	index := 2 * b.slots
	if b.listener {
		index++
	}
	b.slots++
	return Slot[T]{index: index}
}

// Set keeps v for this exchange.
func (s Slot[T]) Set(x *exchange.Exchange, v T) {
	for len(x.Slots) <= s.index {
		x.Slots = append(x.Slots, nil)
	}
	x.Slots[s.index] = v
}

// Get returns what Set kept for this exchange.
func (s Slot[T]) Get(x *exchange.Exchange) (v T, ok bool) {
	if s.index >= len(x.Slots) {
		return v, false
	}
	v, ok = x.Slots[s.index].(T)
	return v, ok
}
