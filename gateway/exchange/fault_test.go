package exchange

import (
	"errors"
	"fmt"
	"testing"
)

func TestFault(t *testing.T) {
	cause := errors.New("dial refused")
	tests := map[Kind]struct {
		origin    Side
		status    int
		retryable bool
	}{
		BadRequest:         {SideClient, 400, false},
		BadPath:            {SideClient, 400, false},
		FieldsTooLarge:     {SideClient, 431, false},
		BodyTooLarge:       {SideClient, 413, false},
		MethodRefused:      {SideClient, 405, false},
		ExpectationFailed:  {SideClient, 417, false},
		ClientTimeout:      {SideClient, 408, false},
		ClientAborted:      {SideClient, 499, false},
		NoRoute:            {SideGateway, 404, false},
		Misdirected:        {SideClient, 421, false},
		InvalidBackend:     {SideGateway, 500, false},
		NoBackends:         {SideGateway, 500, false},
		FilterFailed:       {SideGateway, 500, false},
		NoEndpoints:        {SideGateway, 503, false},
		UpstreamConnect:    {SideUpstream, 503, true},
		UpstreamTLS:        {SideUpstream, 503, true},
		UpstreamReset:      {SideUpstream, 502, false},
		UpstreamProtocol:   {SideUpstream, 502, false},
		UpstreamTimeout:    {SideUpstream, 504, false},
		RequestTimeout:     {SideGateway, 504, false},
		UpgradeUnsupported: {SideClient, 400, false},
	}
	for kind, tt := range tests {
		fault := NewFault(kind, cause)
		if fault.Origin != tt.origin || fault.Status != tt.status || fault.Retryable != tt.retryable {
			t.Errorf("%s: %s %d %v, want %s %d %v", kind, fault.Origin, fault.Status, fault.Retryable, tt.origin, tt.status, tt.retryable)
		}
		if want := tt.origin.String() + ": " + string(kind) + ": dial refused"; fault.Error() != want || !errors.Is(fault, cause) {
			t.Errorf("%q, want %q", fault.Error(), want)
		}
	}
	if got := NewFault(NoRoute, nil).Error(); got != "gateway: no_route" {
		t.Errorf("without a cause: %q", got)
	}
}

func TestAsFault(t *testing.T) {
	cause := errors.New("reset")
	fault := NewFault(BadPath, cause)
	if got := AsFault(fmt.Errorf("wrapped: %w", fault), UpstreamReset); got != fault {
		t.Errorf("a fault in the chain became %v", got)
	}
	if got := AsFault(cause, UpstreamReset); got.Kind != UpstreamReset || got.Status != 502 || !errors.Is(got, cause) {
		t.Errorf("another error became %v", got)
	}
}

func TestProtoString(t *testing.T) {
	for proto, want := range map[Proto]string{ProtoUnknown: "unknown", HTTP10: "HTTP/1.0", HTTP11: "HTTP/1.1", HTTP2: "HTTP/2", HTTP3: "HTTP/3"} {
		if got := proto.String(); got != want {
			t.Errorf("%d: %q, want %q", proto, got, want)
		}
	}
}
