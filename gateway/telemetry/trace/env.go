package trace

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// The environment is the standard one of OpenTelemetry. A word that is not understood is reported and its default used, as the
// specification asks; only an endpoint that cannot be one is an error, because every span would be lost. What is not read here
// (headers, timeouts, compression, certificates, batch and span limits) is read by the exporters and the SDK themselves.
const (
	envDisabled       = "OTEL_SDK_DISABLED"
	envExporter       = "OTEL_TRACES_EXPORTER"
	envEndpoint       = "OTEL_EXPORTER_OTLP_ENDPOINT"
	envTracesEndpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	envProtocol       = "OTEL_EXPORTER_OTLP_PROTOCOL"
	envTracesProtocol = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
	envSampler        = "OTEL_TRACES_SAMPLER"
	envSamplerArg     = "OTEL_TRACES_SAMPLER_ARG"
	envPropagators    = "OTEL_PROPAGATORS"

	protocolGRPC = "grpc"
	protocolHTTP = "http/protobuf"

	// defaultRatio is the share of traces that begin here and are recorded.
	defaultRatio = 0.01
)

type settings struct {
	endpoint string // "" when tracing is off
	// hostPort says that the endpoint is HOST:PORT without a scheme, which gRPC alone allows.
	hostPort    bool
	protocol    string
	sampler     sampler
	propagation propagation
}

// sampler decides whether an exchange is recorded. Of traces without a decision it takes a share, by the id: whoever uses the same share
// and OpenTelemetry's TraceIDRatioBased, which this is, takes the same traces.
type sampler struct {
	// followParent takes the decision that the request carries, if it carries one.
	followParent bool
	// thinsParents takes only a share of what a caller sampled: of the callers' span ids, which have nothing to do with how the callers
	// chose, those whose last 63 bits (less one) are smaller than parentsBelow.
	thinsParents bool
	parentsBelow uint64
	// below is the share of the 63-bit numbers: ids whose last 63 bits (less one) are smaller are recorded.
	below uint64
}

// newSampler makes a sampler for a share from 0 to 1.
func newSampler(followParent bool, share float64) sampler {
	return sampler{followParent: followParent, below: shareBelow(share)}
}

func (s sampler) sample(in *incoming) bool {
	if s.followParent && in.sampling != samplingOpen {
		if s.thinsParents && in.sampling == samplingYes && binary.BigEndian.Uint64(in.span[:])>>1 >= s.parentsBelow {
			return false
		}
		return in.sampling != samplingNo
	}
	return binary.BigEndian.Uint64(in.trace[len(in.trace)/2:])>>1 < s.below
}

func readEnv(log *slog.Logger) (settings, error) {
	s := settings{propagation: readPropagators(log), sampler: readSampler(log)}
	if strings.EqualFold(lookup(envDisabled), "true") {
		return s, nil
	}
	for name := range strings.SplitSeq(cmp.Or(lookup(envExporter), "otlp"), ",") {
		switch strings.TrimSpace(name) {
		case "otlp":
			return s, s.readEndpoint(log)
		case "none":
			return s, nil
		default:
			log.Warn("an exporter that is not known is left out; use otlp or none", "variable", envExporter, "value", name)
		}
	}
	return s, nil
}

func (s *settings) readEndpoint(log *slog.Logger) error {
	variable := envTracesEndpoint
	if lookup(variable) == "" {
		variable = envEndpoint
	}
	value := lookup(variable)
	if value == "" {
		return nil
	}
	s.protocol = cmp.Or(lookup(envTracesProtocol), lookup(envProtocol), protocolHTTP)
	if s.protocol != protocolGRPC && s.protocol != protocolHTTP {
		log.Warn("an OTLP protocol that is not known is replaced", "value", s.protocol, "by", protocolHTTP)
		s.protocol = protocolHTTP
	}
	if s.protocol == protocolGRPC && !strings.Contains(value, "://") {
		if host, port, err := net.SplitHostPort(value); err == nil && host != "" && port != "" {
			s.endpoint, s.hostPort = value, true
			return nil
		}
	}
	u, err := url.Parse(value)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		// The value is not shown: it may carry a password.
		return fmt.Errorf("tracing: %s is no http or https URL; set it to one like http://collector:4318, or unset it to turn tracing off",
			variable)
	}
	s.endpoint = value
	return nil
}

// readSampler returns parentbased_traceidratio at 1 % unless the environment says otherwise. A mistake gives the default too: it must
// not turn on recording everything.
func readSampler(log *slog.Logger) sampler {
	name := cmp.Or(strings.ToLower(lookup(envSampler)), "parentbased_traceidratio")
	kind, followParent := strings.CutPrefix(name, "parentbased_")
	switch kind {
	case "always_on":
		return newSampler(followParent, 1)
	case "always_off":
		return newSampler(followParent, 0)
	case "traceidratio":
		return newSampler(followParent, readRatio(log))
	}
	log.Warn("a sampler that is not known is replaced by parentbased_traceidratio at 1 %", "variable", envSampler, "value", name)
	return newSampler(true, defaultRatio)
}

// readRatio returns the sampler's argument. A ratio sampler that is named without one records everything, says the specification.
func readRatio(log *slog.Logger) float64 {
	arg := lookup(envSamplerArg)
	if arg == "" {
		if lookup(envSampler) != "" {
			return 1
		}
		return defaultRatio
	}
	ratio, err := strconv.ParseFloat(arg, 64)
	if err != nil || !(ratio >= 0 && ratio <= 1) {
		log.Warn("a sampling ratio must be a number from 0 to 1; 0.01 is used", "variable", envSamplerArg, "value", arg)
		return defaultRatio
	}
	return ratio
}

func readPropagators(log *slog.Logger) propagation {
	list := lookup(envPropagators)
	if list == "" {
		return defaultPropagation()
	}
	var p propagation
	for name := range strings.SplitSeq(list, ",") {
		switch strings.TrimSpace(name) {
		case "tracecontext":
			p.read |= formatW3C
			p.write |= formatW3C
		case "b3":
			p.read |= formatB3Single | formatB3Multi
			p.write |= formatB3Single
		case "b3multi":
			p.read |= formatB3Single | formatB3Multi
			p.write |= formatB3Multi
		case "none":
			return propagation{}
		case "baggage", "":
			// Baggage passes through like any other field.
		default:
			log.Warn("a propagator that is not known is left out; use tracecontext, b3, b3multi, baggage or none",
				"variable", envPropagators, "value", name)
		}
	}
	return p
}

// lookup returns a variable; one that is set and empty counts as unset, says the specification.
func lookup(name string) string { return strings.TrimSpace(os.Getenv(name)) }
