package trace

import (
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// Inject writes the trace context for the upstream: W3C, the B3 form that the request came with, and what OTEL_PROPAGATORS asks for.
// The upstream's span becomes a child of this one. Fields of the client's context are replaced, so that no two forms disagree; while
// tracing is off nothing is touched.
func (s *Span) Inject(fields *exchange.Fields) {
	if s.tracer == nil {
		return
	}
	// A form that was read is rewritten: left alone it would name another parent.
	write := s.tracer.propagation.write | s.came
	if write&formatW3C != 0 {
		fields.Set(exchange.Traceparent.String(), s.traceparent)
		if !s.keepState {
			// The state belongs to a trace that was not continued (W3C Trace Context 3.3.1.1).
			fields.DelID(exchange.Tracestate)
		}
	}
	if write&formatB3Single != 0 {
		fields.Set(exchange.B3.String(), s.b3())
	}
	if write&formatB3Multi != 0 {
		s.injectMulti(fields)
	}
}

// b3 returns the single field. The parent is named too: a receiver that shares the span id of its caller needs it.
func (s *Span) b3() string {
	value := s.traceparent[traceStart:spanEnd] + "-" + s.decision()
	if s.parent != "" {
		value += "-" + s.parent
	}
	return value
}

func (s *Span) injectMulti(fields *exchange.Fields) {
	fields.Set(exchange.XB3TraceID.String(), s.traceparent[traceStart:traceEnd])
	fields.Set(exchange.XB3SpanID.String(), s.traceparent[spanStart:spanEnd])
	if s.parent != "" {
		fields.Set(exchange.XB3ParentSpanID.String(), s.parent)
	} else {
		fields.DelID(exchange.XB3ParentSpanID)
	}
	if s.debug {
		// Debug implies the decision, which is not sent as well.
		fields.Set(exchange.XB3Flags.String(), "1")
		fields.DelID(exchange.XB3Sampled)
		return
	}
	fields.DelID(exchange.XB3Flags)
	fields.Set(exchange.XB3Sampled.String(), s.decision())
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
