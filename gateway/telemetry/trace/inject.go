package trace

import (
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// Inject writes the trace context for the upstream: W3C, the B3 form that the request came with, and what OTEL_PROPAGATORS asks for.
// The upstream's span becomes a child of this one. Fields of the client's context are replaced, so that no two forms disagree; while
// tracing is off nothing is touched. The values are views, valid as long as the exchange.
func (s *Span) Inject(fields *exchange.Fields) {
	if s.tracer == nil {
		return
	}
	// A form that was read is rewritten: left alone it would name another parent.
	write, there := s.tracer.propagation.write|s.came, maskOf(*fields)
	if write&formatW3C != 0 {
		set(fields, there, exchange.Traceparent, s.traceparent)
		if !s.keepState && there&maskState != 0 {
			// The state belongs to a trace that was not continued (W3C Trace Context 3.3.1.1).
			fields.DelID(exchange.Tracestate)
		}
	}
	if write&formatB3Single != 0 {
		set(fields, there, exchange.B3, s.b3())
	}
	if write&formatB3Multi != 0 {
		s.injectMulti(fields, there)
	}
}

// set is Fields.Set by ID, with a short way for a name that the fields, going by there, have once or not at all.
func set(fields *exchange.Fields, there uint64, id exchange.ID, value string) {
	list, at := *fields, -1
	if there&(1<<id) == 0 {
		*fields = append(list, exchange.Field{Name: id.String(), Value: value, ID: id})
		return
	}
	for i := range list {
		if list[i].ID != id {
			continue
		}
		if at >= 0 {
			fields.Set(id.String(), value)
			return
		}
		at = i
	}
	list[at].Name, list[at].Value = id.String(), value
}

// b3 returns the single field. The parent is named too: a receiver that shares the span id of its caller needs it.
func (s *Span) b3() string {
	var buf [traceparentLen + 32]byte
	value := append(buf[:0], s.traceparent[traceStart:spanEnd]...)
	value = append(append(value, '-'), s.decision()...)
	if s.parent != "" {
		value = append(append(value, '-'), s.parent...)
	}
	return s.x.Keep(value)
}

func (s *Span) injectMulti(fields *exchange.Fields, there uint64) {
	set(fields, there, exchange.XB3TraceID, s.traceparent[traceStart:traceEnd])
	set(fields, there, exchange.XB3SpanID, s.traceparent[spanStart:spanEnd])
	if s.parent != "" {
		set(fields, there, exchange.XB3ParentSpanID, s.parent)
	} else {
		fields.DelID(exchange.XB3ParentSpanID)
	}
	if s.debug {
		// Debug implies the decision, which is not sent as well.
		set(fields, there, exchange.XB3Flags, "1")
		fields.DelID(exchange.XB3Sampled)
		return
	}
	fields.DelID(exchange.XB3Flags)
	set(fields, there, exchange.XB3Sampled, s.decision())
}

func (s *Span) decision() string {
	switch {
	case s.debug:
		return "d"
	case s.sampled:
		return "1"
	}
	return "0"
}
