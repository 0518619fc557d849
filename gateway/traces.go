package gateway

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/telemetry"
)

// The spans of a listener with tracing settings of its own go to a cluster of the configuration, by OTLP:
//
//	over HTTP/1.1   POST /v1/traces                                                    the message
//	over HTTP/2     POST /opentelemetry.proto.collector.trace.v1.TraceService/Export   a gRPC call of one message

const (
	otlpHTTPPath = "/v1/traces"
	otlpGRPCPath = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
)

// tracer makes or finds the Tracer of a listener's settings.
func (e *Engine) tracer(c *config.Tracing, cluster *config.Cluster) (*telemetry.Tracer, error) {
	s := telemetry.TraceSettings{
		Disabled: c.Disabled, Share: share(c.Sampling), IgnoreParent: c.IgnoreParent, ParentShare: share(c.ParentSampling),
		ServiceName: c.ServiceName, SpanName: c.SpanName,
	}
	for _, a := range c.Attributes {
		s.Attributes = append(s.Attributes, telemetry.TraceAttribute{Name: a.Name, Literal: a.Literal, Header: a.Header, Attribute: a.Attribute})
	}
	key := *c
	key.Origin = config.Origin{}
	grpc := false
	if cluster != nil {
		grpc = cluster.Protocol == config.UpstreamH2C || cluster.Protocol == config.UpstreamHTTP2
		name, headers := cluster.Name, c.Headers
		s.Send = func(ctx context.Context, message []byte) error { return e.sendSpans(ctx, name, headers, grpc, message) }
	}
	text, err := json.Marshal(key)
	if err != nil {
		return nil, fmt.Errorf("the tracing settings do not marshal: %w", err)
	}
	return e.telemetry.Tracer(fmt.Sprintf("%v %s", grpc, text), s)
}

// share is a fraction as a number.
func share(f *config.Fraction) *float64 {
	if f == nil || f.Denominator == 0 {
		return nil
	}
	return new(float64(f.Numerator) / float64(f.Denominator))
}

// letGoTracers ends a hold on Tracers, and those that nobody holds any more, beside what is to be done next: their last spans may have to wait.
func (e *Engine) letGoTracers(list []*telemetry.Tracer) {
	gone := e.telemetry.LetGoTracers(list)
	if len(gone) == 0 {
		return
	}
	e.mirrors.Go(func() {
		ctx, cancel := context.WithTimeout(e.lifetime, callTime)
		defer cancel()
		for _, tracer := range gone {
			if err := tracer.Shutdown(ctx); err != nil {
				e.options.Logger.Warn("the last spans of a listener's former tracing settings are lost", "error", err)
			}
		}
	})
}

// sendSpans delivers spans to a cluster of the running configuration.
func (e *Engine) sendSpans(ctx context.Context, cluster string, headers []config.Header, grpc bool, message []byte) error {
	head := &exchange.Head{Method: "POST", Scheme: "http", Target: otlpHTTPPath}
	contentType := "application/x-protobuf"
	if grpc {
		head.Target, contentType = otlpGRPCPath, grpcType
		head.Fields.AddID(exchange.TE, "TE", "trailers")
		message = append(binary.BigEndian.AppendUint32(make([]byte, 1, len(message)+5), uint32(len(message))), message...)
	}
	if err := head.Normalize(); err != nil {
		return err
	}
	head.Fields.AddID(exchange.ContentType, "Content-Type", contentType)
	for _, h := range headers {
		if id := exchange.IDOf(h.Name); !id.HopByHop() && id != exchange.Host && id != exchange.ContentLength {
			head.Fields.Set(h.Name, h.Value)
		}
	}
	pinned := e.pin()
	defer pinned.Release()
	life := &exchange.Life{}
	defer context.AfterFunc(ctx, func() { life.End(nil) })()
	call := &exchange.Call{Cluster: cluster, Head: head, Body: message, Timeout: callTime}
	if fault := e.call(pinned, life, call); fault != nil {
		return fault
	}
	return spansTaken(call, grpc)
}

// spansTaken reads the collector's answer.
func spansTaken(call *exchange.Call, grpc bool) error {
	if !grpc {
		if call.Answer.Status/100 != 2 {
			return fmt.Errorf("the trace collector answered %d", call.Answer.Status)
		}
		return nil
	}
	status, ok := call.Trailers.Lookup(grpcStatusName)
	if !ok {
		status, _ = call.Answer.Fields.Lookup(grpcStatusName)
	}
	if call.Answer.Status != 200 || status != "0" {
		return fmt.Errorf("the trace collector answered %d with grpc-status %q", call.Answer.Status, status)
	}
	return nil
}
