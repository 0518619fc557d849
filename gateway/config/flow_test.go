package config

import (
	"net/netip"
	"strings"
	"testing"
)

func TestValidateListenersForFlows(t *testing.T) {
	stream := []*StreamRoute{{Origin: Origin{Kind: "TCPRoute", Namespace: "ns", Name: "r"}, Rule: "0", Backends: []Backend{{Cluster: "c", Weight: 1}}}}
	for name, tc := range map[string]struct {
		listener Listener
		want     string
	}{
		"TCP":                {Listener{Protocol: TCP, Streams: stream}, ""},
		"UDP":                {Listener{Protocol: UDP, Streams: stream}, ""},
		"TLS passed on":      {Listener{Protocol: TLS, Streams: stream}, ""},
		"TLS opened":         {Listener{Protocol: TLS, Streams: stream, TLS: &ListenerTLS{Certificates: []string{"cert"}}}, ""},
		"TCP with TLS":       {Listener{Protocol: TCP, TLS: &ListenerTLS{Certificates: []string{"cert"}}}, "protocol TCP and TLS settings do not go together"},
		"streams over HTTP":  {Listener{Protocol: HTTP, Streams: stream}, "protocol HTTP has no routes for streams"},
		"requests over TCP":  {Listener{Protocol: TCP, Routes: []*Route{{}}}, "protocol TCP has no routes for requests"},
		"no protocol":        {Listener{}, `protocol "" is not known`},
		"no such cluster":    {Listener{Protocol: UDP, Streams: []*StreamRoute{{Backends: []Backend{{Cluster: "d"}}}}}, "there is no cluster d"},
		"no backend at all":  {Listener{Protocol: UDP, Streams: []*StreamRoute{{}}}, ""},
		"an invalid backend": {Listener{Protocol: UDP, Streams: []*StreamRoute{{Backends: []Backend{{Invalid: "RefNotPermitted"}}}}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := tc.listener
			l.Name, l.Port = "l", 80
			err := (&Config{Listeners: []*Listener{&l}, Clusters: []*Cluster{{Name: "c"}}, Certificates: []*Certificate{{Name: "cert"}}}).Validate()
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// TCP and UDP listeners of one port have sockets of their own.
func TestBindKeys(t *testing.T) {
	here := netip.MustParseAddr("192.0.2.1")
	for protocol, want := range map[Protocol]string{HTTP: "192.0.2.1:53", TLS: "192.0.2.1:53", TCP: "192.0.2.1:53", UDP: "192.0.2.1:53/udp"} {
		if got := (&Listener{Port: 53, Protocol: protocol}).BindKey(here); got != want {
			t.Errorf("%s: got %s, want %s", protocol, got, want)
		}
	}
	if got := UDPKey(netip.Addr{}, 53); got != "*:53/udp" {
		t.Errorf("got %s", got)
	}
}
