package gateway

import (
	"net/url"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/codec/h2"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/upstream"
)

// TestGRPCFaultKinds: every kind of fault has a code, the one that docs/reference.md lists.
func TestGRPCFaultKinds(t *testing.T) {
	now := time.Now()
	x := &exchange.Exchange{Start: now}
	for kind, want := range map[exchange.Kind]grpcCode{
		exchange.BadRequest: 13, exchange.BadPath: 3, exchange.FieldsTooLarge: 8, exchange.BodyTooLarge: 8, exchange.MethodRefused: 12,
		exchange.ExpectationFailed: 13, exchange.ClientTimeout: 4, exchange.ClientAborted: 1, exchange.NoRoute: 12, exchange.Misdirected: 14,
		exchange.InvalidBackend: 14, exchange.NoBackends: 14, exchange.FilterFailed: 13, exchange.AuthFailed: 7, exchange.NoEndpoints: 14,
		exchange.UpstreamConnect: 14, exchange.UpstreamTLS: 14, exchange.UpstreamReset: 14, exchange.UpstreamProtocol: 13,
		exchange.UpstreamTimeout: 4, exchange.RequestTimeout: 4, exchange.UpgradeUnsupported: 13,
	} {
		if got := grpcFault(x, exchange.NewFault(kind, nil), now); got != want {
			t.Errorf("%s: code %d, want %d", kind, got, want)
		}
	}
}

// TestGRPCReset: a reset means what its code says, unless the call's time is over.
func TestGRPCReset(t *testing.T) {
	now := time.Now()
	for code, want := range map[h2.Code]grpcCode{
		h2.NoError: 13, h2.ProtocolError: 13, h2.InternalError: 13, h2.FlowControlError: 13, h2.SettingsTimeout: 13, h2.StreamClosed: 2,
		h2.FrameSizeError: 13, h2.RefusedStream: 14, h2.Cancel: 1, h2.CompressionError: 13, h2.ConnectError: 13, h2.EnhanceYourCalm: 8,
		h2.InadequateSecurity: 7, h2.HTTP11Required: 2,
	} {
		for timeout, over := range map[string]bool{"": false, "100m": true, "101m": false, "1S": false, "x": false, "0n": true} {
			x := &exchange.Exchange{Start: now.Add(-100 * time.Millisecond)}
			if timeout != "" {
				x.Req.Fields.Add("grpc-timeout", timeout)
			}
			expect := want
			if over {
				expect = grpcDeadlineExceeded
			}
			if got := grpcFault(x, exchange.NewFault(exchange.UpstreamReset, &upstream.ResetError{Code: code}), now); got != expect {
				t.Errorf("%s with grpc-timeout %q: code %d, want %d", code, timeout, got, expect)
			}
		}
	}
}

func TestGRPCTimeout(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "3S": 3 * time.Second, "4m": 4 * time.Millisecond, "5u": 5 * time.Microsecond, "6n": 6,
		"99999999S": 99_999_999 * time.Second, "0S": 0,
		"": -1, "S": -1, "1": -1, "1s": -1, "-1S": -1, "+1S": -1, "123456789S": -1, "1.5S": -1, " 1S": -1, "1S ": -1, "0x1S": -1,
	} {
		got, ok := grpcTimeout(text)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"99999999H", "99999999M"} { // centuries: no overflow
		if got, ok := grpcTimeout(text); !ok || got < 100*365*24*time.Hour {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
}

func TestIsGRPC(t *testing.T) {
	for contentType, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "application/grpc; x=y": true, "APPLICATION/GRPC": true, "application/grpc ": true,
		"application/grpc-web": false, "application/grpc-web+proto": false, "application/grpcx": false, "application/json": false, "": false, "application/grp": false,
	} {
		if got := isGRPC(contentType); got != want {
			t.Errorf("%q: %v", contentType, got)
		}
	}
}

func FuzzGRPCEscape(f *testing.F) {
	f.Add("not now: 50% \u2713\r\n")
	f.Fuzz(func(t *testing.T, message string) {
		got := grpcEscape(message)
		for i := range len(got) {
			if got[i] < ' ' || got[i] > '~' {
				t.Fatalf("%q holds %q", got, got[i])
			}
		}
		if back, err := url.PathUnescape(got); err != nil || back != message {
			t.Errorf("%q became %q and then %q, %v", message, got, back, err)
		}
	})
}
