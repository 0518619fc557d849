package trace

import (
	"encoding/hex"
	"strings"

	oteltrace "go.opentelemetry.io/otel/trace"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// A request says which trace it belongs to in up to three ways. The first that is whole and valid counts, in this order:
//
//	traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01     W3C Trace Context
//	b3: 4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1-05e3ac9a4f6e3b90 B3, single
//	x-b3-traceid, x-b3-spanid, x-b3-parentspanid, x-b3-sampled, x-b3-flags   B3, multiple
//
//	traceparent  = version "-" 32HEX "-" 16HEX "-" 2HEX [ "-" anything, when version > 00 ]
//	b3           = decision / trace "-" 16HEX [ "-" decision [ "-" 16HEX ] ]
//	trace        = 32HEX / 16HEX              ; 64 bits are the low half
//	decision     = "0" / "1" / "d"            ; d is debug: sample, and tell everyone
//
// HEX is a lower-case digit. Ids of zeros and version ff are invalid. A field that comes more than once has no one meaning and is
// ignored. B3 may carry a decision without ids; ids without a decision leave it to the receiver.

const (
	traceparentLen = 55
	traceStart     = 3
	traceEnd       = traceStart + 32
	spanStart      = traceEnd + 1
	spanEnd        = spanStart + 16

	flagSampled = 1
	flagRandom  = 2
)

// formats is a set of ways to carry a trace context.
type formats uint8

const (
	formatW3C formats = 1 << iota
	formatB3Single
	formatB3Multi
)

// sampling is what the request says about recording.
type sampling uint8

const (
	samplingOpen sampling = iota // nothing
	samplingNo
	samplingYes
	samplingDebug
)

// propagation says which formats are read and which are always written. Those that came in are also rewritten when they are read.
type propagation struct{ read, write formats }

func defaultPropagation() propagation {
	return propagation{read: formatW3C | formatB3Single | formatB3Multi, write: formatW3C}
}

// incoming is the trace context of a request.
type incoming struct {
	trace    oteltrace.TraceID // zero when the request belongs to no trace
	span     oteltrace.SpanID
	flags    byte
	sampling sampling
	came     formats // the formats with at least one field
	w3c      bool    // the ids are from traceparent

	// The ids as they stood in the request: views. traceText is "" for a 64-bit id.
	traceText, spanText string
}

// traceID returns the 32 hex digits, valid as long as the exchange; "" when there is no trace.
func (in *incoming) traceID(x *exchange.Exchange) string {
	if in.traceText != "" || !in.trace.IsValid() {
		return in.traceText
	}
	var buf [2 * len(in.trace)]byte
	hex.Encode(buf[:], in.trace[:])
	return x.Keep(buf[:])
}

// once is the value of a field that must come once.
type once struct {
	value string
	count int
}

func (o *once) set(v string) { o.value, o.count = v, o.count+1 }

func (o *once) get() string {
	if o.count != 1 {
		return ""
	}
	v := o.value
	for v != "" && (v[0] == ' ' || v[0] == '\t') {
		v = v[1:]
	}
	for v != "" && (v[len(v)-1] == ' ' || v[len(v)-1] == '\t') {
		v = v[:len(v)-1]
	}
	return v
}

type carried struct{ traceparent, b3, trace, span, parent, sampled, flags once }

// The fields of each format as bits by ID, so that one pass over a request's fields tells which came. It does not compile when an ID has no
// bit any more.
const (
	maskW3C      = uint64(1) << exchange.Traceparent
	maskState    = uint64(1) << exchange.Tracestate
	maskB3Single = uint64(1) << exchange.B3
	maskB3Multi  = uint64(1)<<exchange.XB3TraceID | uint64(1)<<exchange.XB3SpanID | uint64(1)<<exchange.XB3ParentSpanID |
		uint64(1)<<exchange.XB3Sampled | uint64(1)<<exchange.XB3Flags
)

// maskOf returns the bits of the fields; names without one are left out.
func maskOf(fields exchange.Fields) (mask uint64) {
	for i := range fields {
		mask |= uint64(1) << fields[i].ID
	}
	return mask
}

// formatsIn returns the formats that have at least one field.
func formatsIn(mask uint64) (f formats) {
	if mask&maskW3C != 0 {
		f |= formatW3C
	}
	if mask&maskB3Single != 0 {
		f |= formatB3Single
	}
	if mask&maskB3Multi != 0 {
		f |= formatB3Multi
	}
	return f
}

// extract reads the request's trace context. Most requests have none, which the first look at their fields settles.
func (p propagation) extract(fields exchange.Fields) (in incoming) {
	if in.came = p.read & formatsIn(maskOf(fields)); in.came != 0 {
		in.read(fields)
	}
	return in
}

// read parses the formats that came.
func (in *incoming) read(fields exchange.Fields) {
	var c carried
	for i := range fields {
		switch value := fields[i].Value; fields[i].ID {
		case exchange.Traceparent:
			c.traceparent.set(value)
		case exchange.B3:
			c.b3.set(value)
		case exchange.XB3TraceID:
			c.trace.set(value)
		case exchange.XB3SpanID:
			c.span.set(value)
		case exchange.XB3ParentSpanID:
			c.parent.set(value)
		case exchange.XB3Sampled:
			c.sampled.set(value)
		case exchange.XB3Flags:
			c.flags.set(value)
		}
	}
	switch {
	case in.came&formatW3C != 0 && in.parseTraceparent(c.traceparent.get()):
	case in.came&formatB3Single != 0 && in.parseB3(c.b3.get()):
	case in.came&formatB3Multi != 0 && in.parseB3Multi(&c):
	}
}

// parseTraceparent is W3C Trace Context 3.2.2 and, for versions to come, 3.2.4.
func (in *incoming) parseTraceparent(v string) bool {
	if len(v) < traceparentLen || v[2] != '-' || v[traceEnd] != '-' || v[spanEnd] != '-' {
		return false
	}
	var version, flags [1]byte
	if !unhex(version[:], v[:2]) || !unhex(flags[:], v[spanEnd+1:traceparentLen]) || version[0] == 0xff {
		return false
	}
	if len(v) > traceparentLen && (version[0] == 0 || v[traceparentLen] != '-') {
		return false
	}
	if !in.setIDs(v[traceStart:traceEnd], v[spanStart:spanEnd]) {
		return false
	}
	in.flags, in.w3c, in.sampling = flags[0]&(flagSampled|flagRandom), true, samplingNo
	if flags[0]&flagSampled != 0 {
		in.sampling = samplingYes
	}
	return true
}

// parseB3 reads the single field.
func (in *incoming) parseB3(v string) bool {
	trace, rest, ids := strings.Cut(v, "-")
	if !ids {
		decision, ok := decisionOf(v)
		if ok {
			in.sampling = decision
		}
		return ok
	}
	span, rest, more := strings.Cut(rest, "-")
	decision := samplingOpen
	if more {
		word, parent, hasParent := strings.Cut(rest, "-")
		var ok bool
		if decision, ok = decisionOf(word); !ok || hasParent && !validSpan(parent) {
			return false
		}
	}
	if !in.setIDs(trace, span) {
		return false
	}
	in.decide(decision)
	return true
}

// parseB3Multi reads the X-B3 fields. "true" and "false" are from before the format was written down and still sent.
func (in *incoming) parseB3Multi(c *carried) bool {
	decision := samplingOpen
	switch v := c.sampled.get(); {
	case c.flags.get() == "1":
		decision = samplingDebug
	case v == "1" || strings.EqualFold(v, "true"):
		decision = samplingYes
	case v == "0" || strings.EqualFold(v, "false"):
		decision = samplingNo
	case c.sampled.count > 0:
		return false
	}
	if c.trace.count+c.span.count+c.parent.count == 0 {
		in.decide(decision)
		return decision != samplingOpen
	}
	if c.parent.count > 0 && !validSpan(c.parent.get()) || !in.setIDs(c.trace.get(), c.span.get()) {
		return false
	}
	in.decide(decision)
	return true
}

func (in *incoming) decide(s sampling) {
	in.sampling = s
	if s == samplingYes || s == samplingDebug {
		in.flags = flagSampled
	}
}

func decisionOf(word string) (sampling, bool) {
	switch word {
	case "0":
		return samplingNo, true
	case "1":
		return samplingYes, true
	case "d":
		return samplingDebug, true
	}
	return samplingOpen, false
}

// setIDs takes both ids, or neither.
func (in *incoming) setIDs(trace, span string) bool {
	var t oteltrace.TraceID
	var s oteltrace.SpanID
	whole := len(trace) == 2*len(t)
	low := t[:]
	if !whole {
		low = t[len(t)/2:]
	}
	if !unhex(low, trace) || !unhex(s[:], span) || !t.IsValid() || !s.IsValid() {
		return false
	}
	in.trace, in.span, in.spanText = t, s, span
	if whole {
		in.traceText = trace
	}
	return true
}

func validSpan(text string) bool {
	var s oteltrace.SpanID
	return unhex(s[:], text) && s.IsValid()
}

// unhex decodes exactly len(dst) bytes of lower-case hex digits.
func unhex(dst []byte, text string) bool {
	if len(text) != 2*len(dst) {
		return false
	}
	all := byte(0)
	for i := range dst {
		high, low := nibbles[text[2*i]], nibbles[text[2*i+1]]
		all |= high | low
		dst[i] = high<<4 | low
	}
	return all < 16
}

// nibbles is indexed by a hex digit; whatever is none has bits beyond the lowest four. It is never written after start.
var nibbles = func() (table [256]byte) {
	for i := range table {
		table[i] = 0xff
	}
	for value, digit := range []byte("0123456789abcdef") {
		table[digit] = byte(value)
	}
	return table
}()
