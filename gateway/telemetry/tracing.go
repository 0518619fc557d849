package telemetry

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/telemetry/trace"
)

// Tracer traces the exchanges of some listeners in a way of its own.
type Tracer = trace.Tracer

// TraceSettings are how it does so.
type TraceSettings = trace.Settings

// TraceAttribute is an attribute that it adds to spans.
type TraceAttribute = trace.Attribute

// tracers are the Tracers of listeners, by what their settings say.
type tracers struct {
	mu    sync.Mutex
	byKey map[string]*Tracer // guarded by mu
	held  map[*Tracer]int    // how often; guarded by mu

	registered sync.Once // the metrics of spans
}

// Tracer returns the Tracer of these settings: the same one for the same key, so that what it has to send survives a snapshot. It is held for
// the caller until LetGoTracers. Resolve it when a snapshot is compiled.
func (t *Telemetry) Tracer(key string, s TraceSettings) (*Tracer, error) {
	t.derived.mu.Lock()
	defer t.derived.mu.Unlock()
	if known := t.derived.byKey[key]; known != nil {
		t.derived.held[known]++
		return known, nil
	}
	made, err := t.tracer.Derive(context.Background(), s)
	if err != nil {
		return nil, err
	}
	if made.On() {
		if err := t.registerSpans(); err != nil {
			return nil, errors.Join(err, made.Shutdown(context.Background()))
		}
	}
	if t.derived.byKey == nil {
		t.derived.byKey, t.derived.held = map[string]*Tracer{}, map[*Tracer]int{}
	}
	t.derived.byKey[key], t.derived.held[made] = made, 1
	return made, nil
}

// HoldTracer holds a Tracer that is held already once more.
func (t *Telemetry) HoldTracer(tracer *Tracer) {
	t.derived.mu.Lock()
	defer t.derived.mu.Unlock()
	t.derived.held[tracer]++
}

// LetGoTracers ends one hold on each Tracer of the list. It forgets those that nobody holds any more and returns them, to be shut down.
func (t *Telemetry) LetGoTracers(list []*Tracer) (gone []*Tracer) {
	t.derived.mu.Lock()
	defer t.derived.mu.Unlock()
	for _, tracer := range list {
		t.derived.held[tracer]--
	}
	for key, tracer := range t.derived.byKey {
		if t.derived.held[tracer] == 0 {
			gone = append(gone, tracer)
			delete(t.derived.byKey, key)
			delete(t.derived.held, tracer)
		}
	}
	return gone
}

// ShutdownTracers ends all Tracers of listeners and waits until their spans are sent or ctx ends.
func (t *Telemetry) ShutdownTracers(ctx context.Context) error {
	t.derived.mu.Lock()
	all := slices.Collect(maps.Values(t.derived.byKey))
	clear(t.derived.byKey)
	clear(t.derived.held)
	t.derived.mu.Unlock()
	var problems []error
	for _, tracer := range all {
		problems = append(problems, tracer.Shutdown(ctx))
	}
	return errors.Join(problems...)
}

// Answer shows the response's fields to the span before they go to the client.
func (s *Span) Answer(fields exchange.Fields) { s.trace.Answer(fields) }

// Retrace begins the exchange's span again, by the settings of the listener that serves it: what Begin decided counts no more. ctx is the one
// that Begin got, and the result is as Begin's.
func (s *Span) Retrace(ctx context.Context, x *exchange.Exchange, by *Tracer) context.Context {
	s.trace, x.TraceID = trace.Span{}, ""
	return by.Begin(ctx, x, &s.trace)
}
