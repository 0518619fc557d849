package trace

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/contrib/propagators/b3"
	otelpropagation "go.opentelemetry.io/otel/propagation"
	oteltrace "go.opentelemetry.io/otel/trace"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

const (
	traceA   = "4bf92f3577b34da6a3ce929d0e0e4736"
	traceB   = "80f198ee56343ba864fe8b2a57d3eff7"
	low      = "a3ce929d0e0e4736"
	padded   = "0000000000000000" + low
	spanA    = "00f067aa0ba902b7"
	spanB    = "e457b5a2e4d86bd1"
	validW3C = "00-" + traceA + "-" + spanA + "-01"
)

// fields builds a list from "name: value" lines.
func fields(lines ...string) (f exchange.Fields) {
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		f.Add(name, value)
	}
	return f
}

func TestExtract(t *testing.T) {
	type result struct {
		trace, span string
		sampling    sampling
		flags       byte
		w3c         bool
	}
	yes := result{trace: traceA, span: spanA, sampling: samplingYes, flags: flagSampled, w3c: true}
	no := result{trace: traceA, span: spanA, sampling: samplingNo, w3c: true}
	b3Yes := result{trace: traceB, span: spanB, sampling: samplingYes, flags: flagSampled}
	single := "b3: " + traceB + "-" + spanB
	ids := []string{"X-B3-TraceId: " + traceB, "X-B3-SpanId: " + spanB}

	tests := map[string]struct {
		fields exchange.Fields
		want   result
	}{
		"none":                         {},
		"w3c":                          {fields("traceparent: " + validW3C), yes},
		"w3c upper-case name, spaces":  {fields("Traceparent:  " + validW3C + " "), yes},
		"w3c not sampled":              {fields("traceparent: 00-" + traceA + "-" + spanA + "-00"), no},
		"w3c unknown flags":            {fields("traceparent: 00-" + traceA + "-" + spanA + "-fc"), no},
		"w3c random flag":              {fields("traceparent: 00-" + traceA + "-" + spanA + "-03"), result{traceA, spanA, samplingYes, 3, true}},
		"w3c later version":            {fields("traceparent: cc" + validW3C[2:]), yes},
		"w3c later version, longer":    {fields("traceparent: cc" + validW3C[2:] + "-what-comes"), yes},
		"w3c later version, run on":    {fields("traceparent: cc" + validW3C[2:] + "0"), result{}},
		"w3c version 00, longer":       {fields("traceparent: " + validW3C + "-00"), result{}},
		"w3c version ff":               {fields("traceparent: ff" + validW3C[2:]), result{}},
		"w3c upper-case digits":        {fields("traceparent: " + strings.ToUpper(validW3C)), result{}},
		"w3c no hex":                   {fields("traceparent: 00-" + strings.Repeat("g", 32) + "-" + spanA + "-01"), result{}},
		"w3c trace of zeros":           {fields("traceparent: 00-" + strings.Repeat("0", 32) + "-" + spanA + "-01"), result{}},
		"w3c span of zeros":            {fields("traceparent: 00-" + traceA + "-" + strings.Repeat("0", 16) + "-01"), result{}},
		"w3c short":                    {fields("traceparent: " + validW3C[:54]), result{}},
		"w3c twice":                    {fields("traceparent: "+validW3C, "traceparent: "+validW3C), result{}},
		"w3c bad version":              {fields("traceparent: 0x" + validW3C[2:]), result{}},
		"w3c wins":                     {fields("b3: "+traceB+"-"+spanB+"-0", "traceparent: "+validW3C), yes},
		"b3 when w3c is malformed":     {fields("traceparent: nonsense", single+"-1"), b3Yes},
		"b3":                           {fields(single + "-1"), b3Yes},
		"b3 with parent":               {fields(single + "-1-" + spanA), b3Yes},
		"b3 debug":                     {fields(single + "-d"), result{traceB, spanB, samplingDebug, flagSampled, false}},
		"b3 denied":                    {fields(single + "-0"), result{traceB, spanB, samplingNo, 0, false}},
		"b3 open":                      {fields(single), result{traceB, spanB, samplingOpen, 0, false}},
		"b3 64 bit":                    {fields("b3: " + low + "-" + spanB + "-1"), result{padded, spanB, samplingYes, flagSampled, false}},
		"b3 decision alone":            {fields("b3: 0"), result{sampling: samplingNo}},
		"b3 word alone":                {fields("b3: x"), result{}},
		"b3 trailing dash":             {fields(single + "-"), result{}},
		"b3 parent without decision":   {fields(single + "-" + spanA), result{}},
		"b3 bad parent":                {fields(single + "-1-" + spanA[1:]), result{}},
		"b3 too much":                  {fields(single + "-1-" + spanA + "-1"), result{}},
		"b3 trace alone":               {fields("b3: " + traceB), result{}},
		"b3 upper-case digits":         {fields("b3: " + strings.ToUpper(traceB) + "-" + spanB + "-1"), result{}},
		"b3 twice":                     {fields(single+"-1", single+"-1"), result{}},
		"multi":                        {fields(append(ids, "X-B3-Sampled: 1", "X-B3-ParentSpanId: "+spanA)...), b3Yes},
		"multi true":                   {fields(append(ids, "x-b3-sampled: true")...), b3Yes},
		"multi false":                  {fields(append(ids, "x-b3-sampled: False")...), result{traceB, spanB, samplingNo, 0, false}},
		"multi open":                   {fields(ids...), result{traceB, spanB, samplingOpen, 0, false}},
		"multi debug":                  {fields(append(ids, "X-B3-Flags: 1")...), result{traceB, spanB, samplingDebug, flagSampled, false}},
		"multi decision alone":         {fields("X-B3-Sampled: 0"), result{sampling: samplingNo}},
		"multi bad decision":           {fields(append(ids, "X-B3-Sampled: maybe")...), result{}},
		"multi bad parent":             {fields(append(ids, "X-B3-ParentSpanId: 1")...), result{}},
		"multi without span":           {fields(ids[0], "X-B3-Sampled: 1"), result{}},
		"multi trace twice":            {fields(append(ids, ids[0])...), result{}},
		"single before multi":          {fields(append(ids, "b3: "+traceA+"-"+spanA+"-1")...), result{traceA, spanA, samplingYes, flagSampled, false}},
		"multi when single is invalid": {fields(append(ids, "x-b3-sampled: 1", "b3: nonsense")...), b3Yes},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := defaultPropagation().extract(tt.fields)
			got := result{in.traceID(&exchange.Exchange{}), in.spanText, in.sampling, in.flags, in.w3c}
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// carrier is fields as the OpenTelemetry propagators read them.
type carrier struct{ exchange.Fields }

func (c carrier) Get(name string) string { v, _ := c.Lookup(name); return v }
func (c carrier) Keys() []string         { return nil }
func (carrier) Set(string, string)       {}

// FuzzExtract holds the parsers against OpenTelemetry's own.
func FuzzExtract(f *testing.F) {
	for _, s := range []string{validW3C, "cc" + validW3C[2:] + "-x", traceB + "-" + spanB + "-1-" + spanA, low + "-" + spanB, "d", "0", ""} {
		f.Add(s, s, traceB, spanB, "", "1", "")
	}
	f.Add("00-"+traceA+"-"+spanA+"-ff", "", low, spanA, spanB, "true", "1")
	w3c, zipkin := otelpropagation.TraceContext{}, b3.New()
	f.Fuzz(func(t *testing.T, traceparent, single, trace, span, parent, sampled, flags string) {
		list := fields("traceparent: " + traceparent)
		in := propagation{read: formatW3C}.extract(list)
		theirs := oteltrace.SpanContextFromContext(w3c.Extract(context.Background(), carrier{list}))
		// They take flags of version 00 above 3 for an error; the recommendation says to ignore bits that are not known.
		if in.trace.IsValid() != theirs.IsValid() && !(in.trace.IsValid() && strings.HasPrefix(traceparent, "00-")) {
			if strings.TrimSpace(traceparent) == traceparent {
				t.Errorf("traceparent %q: ours %v, theirs %v", traceparent, in.trace, theirs.TraceID())
			}
		}
		if theirs.IsValid() && in.trace.IsValid() && (in.trace != theirs.TraceID() || in.span != theirs.SpanID()) {
			t.Errorf("traceparent %q: ours %v %v, theirs %v %v", traceparent, in.trace, in.span, theirs.TraceID(), theirs.SpanID())
		}
		list = exchange.Fields{}
		for name, value := range map[string]string{"b3": single, "x-b3-traceid": trace, "x-b3-spanid": span,
			"x-b3-parentspanid": parent, "x-b3-sampled": sampled, "x-b3-flags": flags} {
			if value != "" {
				if strings.TrimSpace(value) != value {
					return // they do not trim what a codec trims
				}
				list.Add(name, value)
			}
		}
		in = defaultPropagation().extract(list)
		ctx := zipkin.Extract(context.Background(), carrier{list})
		theirs = oteltrace.SpanContextFromContext(ctx)
		if decision, ok := decisionOf(single); ok {
			if in.trace.IsValid() || in.sampling != decision { // they drop a decision without ids
				t.Errorf("b3 %q: %+v", single, in)
			}
			return
		}
		if in.trace != theirs.TraceID() || in.span != theirs.SpanID() || in.flags&flagSampled != byte(theirs.TraceFlags()) && in.trace.IsValid() {
			t.Errorf("%v: ours %v %v %v, theirs %v %v %v", list, in.trace, in.span, in.flags, theirs.TraceID(), theirs.SpanID(), theirs.TraceFlags())
		}
	})
}

func TestInject(t *testing.T) {
	const mine = "00-" + traceA + "-1111111111111111-01"
	tracer := &Tracer{propagation: defaultPropagation()}
	base := Span{tracer: tracer, x: &exchange.Exchange{}, traceparent: mine, sampled: true, parent: spanA, keepState: true, came: formatW3C}
	with := func(change func(*Span)) Span { s := base; change(&s); return s }
	tests := map[string]struct {
		span Span
		in   exchange.Fields
		want exchange.Fields
	}{
		"off": {Span{}, fields("traceparent: bad", "b3: 1"), fields("traceparent: bad", "b3: 1")},
		"w3c in place": {base, fields("Traceparent: old", "tracestate: a=b", "tracestate: c=d", "baggage: x=y"),
			fields("traceparent: "+mine, "tracestate: a=b", "tracestate: c=d", "baggage: x=y")},
		"state of a trace not continued": {with(func(s *Span) { s.keepState = false }), fields("traceparent: bad", "tracestate: a=b"),
			fields("traceparent: " + mine)},
		"b3": {with(func(s *Span) { s.came = formatB3Single }), fields("b3: old"),
			fields("b3: "+traceA+"-1111111111111111-1-"+spanA, "traceparent: "+mine)},
		"b3 without parent, not sampled": {with(func(s *Span) { s.came, s.parent, s.sampled = formatB3Single, "", false }), fields("b3: 0"),
			fields("b3: "+traceA+"-1111111111111111-0", "traceparent: "+mine)},
		"multi": {with(func(s *Span) { s.came = formatB3Multi }), fields("x-b3-traceid: old", "x-b3-spanid: old", "x-b3-parentspanid: old", "x-b3-sampled: 0"),
			fields("x-b3-traceid: "+traceA, "x-b3-spanid: 1111111111111111", "x-b3-parentspanid: "+spanA, "x-b3-sampled: 1", "traceparent: "+mine)},
		"multi without parent": {with(func(s *Span) { s.came, s.parent = formatB3Multi, "" }), fields("x-b3-parentspanid: old", "x-b3-sampled: 1", "x-b3-flags: 0"),
			fields("x-b3-sampled: 1", "traceparent: "+mine, "x-b3-traceid: "+traceA, "x-b3-spanid: 1111111111111111")},
		"multi debug": {with(func(s *Span) { s.came, s.debug = formatB3Multi, true }), fields("x-b3-flags: 1", "x-b3-sampled: 1"),
			fields("x-b3-flags: 1", "traceparent: "+mine, "x-b3-traceid: "+traceA, "x-b3-spanid: 1111111111111111", "x-b3-parentspanid: "+spanA)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := tt.in
			tt.span.Inject(&got)
			sortFields(got)
			sortFields(tt.want)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			// A retry injects again into what the first attempt may have left.
			again := slices.Clone(got)
			tt.span.Inject(&again)
			if diff := cmp.Diff(got, again); diff != "" {
				t.Errorf("a second time (-want +got):\n%s", diff)
			}
		})
	}
}

func sortFields(f exchange.Fields) {
	slices.SortStableFunc(f, func(a, b exchange.Field) int { return strings.Compare(a.Name, b.Name) })
}

func TestEnv(t *testing.T) {
	share := func(f float64) *float64 { return &f }
	all := defaultPropagation()
	tests := map[string]struct {
		env      map[string]string
		endpoint string
		protocol string
		sampler  *float64 // nil means the default
		follow   bool
		prop     *propagation
		warns    string
		wantErr  string
	}{
		"nothing set":     {follow: true},
		"endpoint":        {env: map[string]string{envEndpoint: "http://c:4318"}, endpoint: "http://c:4318", protocol: protocolHTTP, follow: true},
		"traces endpoint": {env: map[string]string{envEndpoint: "http://a", envTracesEndpoint: "https://b"}, endpoint: "https://b", protocol: protocolHTTP, follow: true},
		"grpc":            {env: map[string]string{envEndpoint: "http://c:4317", envProtocol: "grpc"}, endpoint: "http://c:4317", protocol: protocolGRPC, follow: true},
		"traces protocol": {env: map[string]string{envEndpoint: "http://c", envProtocol: "grpc", envTracesProtocol: "http/protobuf"}, endpoint: "http://c", protocol: protocolHTTP, follow: true},
		"grpc host:port":  {env: map[string]string{envEndpoint: "c:4317", envProtocol: "grpc"}, endpoint: "c:4317", protocol: protocolGRPC, follow: true},
		"http/json":       {env: map[string]string{envEndpoint: "http://c", envProtocol: "http/json"}, endpoint: "http://c", protocol: protocolHTTP, follow: true, warns: "http/json"},
		"http host:port":  {env: map[string]string{envEndpoint: "c:4318"}, wantErr: envEndpoint},
		"broken endpoint": {env: map[string]string{envTracesEndpoint: "http://u:pa ss@\x7f"}, wantErr: envTracesEndpoint},
		"disabled":        {env: map[string]string{envEndpoint: "http://c", envDisabled: "TRUE"}, follow: true},
		"no exporter":     {env: map[string]string{envEndpoint: "http://c", envExporter: "none"}, follow: true},
		"other exporter":  {env: map[string]string{envEndpoint: "http://c", envExporter: "zipkin"}, follow: true, warns: "zipkin"},
		"always on":       {env: map[string]string{envSampler: "always_on"}, sampler: share(1)},
		"always off":      {env: map[string]string{envSampler: "parentbased_always_off"}, sampler: share(0), follow: true},
		"ratio":           {env: map[string]string{envSampler: "traceidratio", envSamplerArg: "0.25"}, sampler: share(0.25)},
		"ratio without":   {env: map[string]string{envSampler: "parentbased_traceidratio"}, sampler: share(1), follow: true},
		"argument alone":  {env: map[string]string{envSamplerArg: "0.5"}, sampler: share(0.5), follow: true},
		"ratio over 1":    {env: map[string]string{envSamplerArg: "7"}, follow: true, warns: "0 to 1"},
		"ratio NaN":       {env: map[string]string{envSamplerArg: "NaN"}, follow: true, warns: "0 to 1"},
		"other sampler":   {env: map[string]string{envSampler: "jaeger_remote"}, follow: true, warns: "jaeger_remote"},
		"propagators":     {env: map[string]string{envPropagators: "tracecontext, baggage,b3multi"}, follow: true, prop: &propagation{all.read, formatW3C | formatB3Multi}},
		"b3 alone":        {env: map[string]string{envPropagators: "b3"}, follow: true, prop: &propagation{formatB3Single | formatB3Multi, formatB3Single}},
		"no propagators":  {env: map[string]string{envPropagators: "none"}, follow: true, prop: &propagation{}},
		"other":           {env: map[string]string{envPropagators: "tracecontext,xray"}, follow: true, prop: &propagation{formatW3C, formatW3C}, warns: "xray"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			setEnv(t, tt.env)
			var messages strings.Builder
			got, err := readEnv(slog.New(slog.NewTextHandler(&messages, nil)))
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) || strings.Contains(err.Error(), "pa ss") {
					t.Fatalf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.endpoint != tt.endpoint || got.protocol != tt.protocol {
				t.Errorf("endpoint %q protocol %q", got.endpoint, got.protocol)
			}
			if tt.sampler == nil {
				tt.sampler = share(defaultRatio)
			}
			if want := newSampler(tt.follow, *tt.sampler); got.sampler != want {
				t.Errorf("sampler %+v, want %+v", got.sampler, want)
			}
			if tt.prop == nil {
				tt.prop = &all
			}
			if got.propagation != *tt.prop {
				t.Errorf("propagation %+v", got.propagation)
			}
			if (tt.warns == "") != (messages.Len() == 0) || !strings.Contains(messages.String(), tt.warns) {
				t.Errorf("messages %q", messages.String())
			}
		})
	}
}

// setEnv sets the OTEL_ variables to these and no others.
func setEnv(t *testing.T, env map[string]string) {
	for _, name := range []string{envDisabled, envExporter, envEndpoint, envTracesEndpoint, envProtocol, envTracesProtocol, envSampler,
		envSamplerArg, envPropagators, "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPORTER_OTLP_INSECURE"} {
		t.Setenv(name, "")
	}
	for name, value := range env {
		if strings.ContainsRune(value, 0) {
			t.Fatalf("%s cannot hold NUL", name)
		}
		t.Setenv(name, value)
	}
}
