package config

import (
	"errors"
	"fmt"
	"net/netip"
)

// Validate reports what makes a configuration unusable as a whole: names that are not unique and references that lead nowhere. A
// translator never makes such a Config; the check guards the proxy against one that arrives by wire.
func (c *Config) Validate() error {
	var problems []error
	clusters := make(map[string]bool, len(c.Clusters))
	for _, cluster := range c.Clusters {
		if clusters[cluster.Name] {
			problems = append(problems, fmt.Errorf("cluster %s stands twice", cluster.Name))
		}
		clusters[cluster.Name] = true
	}
	certificates := make(map[string]bool, len(c.Certificates))
	for _, cert := range c.Certificates {
		if certificates[cert.Name] {
			problems = append(problems, fmt.Errorf("certificate %s stands twice", cert.Name))
		}
		certificates[cert.Name] = true
	}
	for _, cluster := range c.Clusters {
		if tls := cluster.TLS; tls != nil && tls.ClientCertificate != "" && !certificates[tls.ClientCertificate] {
			problems = append(problems, fmt.Errorf("cluster %s: there is no certificate %s", cluster.Name, tls.ClientCertificate))
		}
	}
	listeners := make(map[string]bool, len(c.Listeners))
	checked := map[*Route]bool{}
	for _, l := range c.Listeners {
		if listeners[l.Name] {
			problems = append(problems, fmt.Errorf("listener %s stands twice", l.Name))
		}
		listeners[l.Name] = true
		problems = append(problems, l.validate(certificates)...)
		for _, r := range l.Routes {
			if !checked[r] {
				checked[r] = true
				problems = append(problems, r.validate(clusters)...)
			}
		}
		for _, s := range l.Streams {
			problems = append(problems, validateBackends(s.Origin, s.Rule, s.Backends, clusters)...)
		}
		if t := l.Tracing; t != nil && t.Cluster != "" && !clusters[t.Cluster] {
			problems = append(problems, fmt.Errorf("listener %s: there is no cluster %s for traces", l.Name, t.Cluster))
		}
	}
	return errors.Join(problems...)
}

func (l *Listener) validate(certificates map[string]bool) (problems []error) {
	if l.Port == 0 {
		problems = append(problems, fmt.Errorf("listener %s has no port", l.Name))
	}
	switch l.Protocol {
	case HTTP, HTTPS:
		if len(l.Streams) > 0 {
			problems = append(problems, fmt.Errorf("listener %s: protocol %s has no routes for streams", l.Name, l.Protocol))
		}
	case TLS, TCP, UDP:
		if len(l.Routes) > 0 {
			problems = append(problems, fmt.Errorf("listener %s: protocol %s has no routes for requests", l.Name, l.Protocol))
		}
	default:
		problems = append(problems, fmt.Errorf("listener %s: protocol %q is not known", l.Name, l.Protocol))
	}
	if l.Protocol == HTTPS && l.TLS == nil || l.TLS != nil && l.Protocol != HTTPS && l.Protocol != TLS {
		problems = append(problems, fmt.Errorf("listener %s: protocol %s and TLS settings do not go together", l.Name, l.Protocol))
	}
	if l.TLS != nil {
		for _, name := range l.TLS.Certificates {
			if !certificates[name] {
				problems = append(problems, fmt.Errorf("listener %s: there is no certificate %s", l.Name, name))
			}
		}
	}
	return problems
}

func (r *Route) validate(clusters map[string]bool) (problems []error) {
	for _, rule := range r.Rules {
		problems = append(problems, validateBackends(r.Origin, rule.Name, rule.Backends, clusters)...)
	}
	return problems
}

func validateBackends(route Origin, rule string, backends []Backend, clusters map[string]bool) (problems []error) {
	for _, b := range backends {
		if b.Invalid == "" && !clusters[b.Cluster] {
			problems = append(problems, fmt.Errorf("%s rule %s: there is no cluster %s", route, rule, b.Cluster))
		}
	}
	return problems
}

// Binds returns the addresses of a listener; the zero Addr stands for all interfaces.
func (l *Listener) Binds() []netip.Addr {
	if len(l.Addresses) == 0 {
		return []netip.Addr{{}}
	}
	return l.Addresses
}

// UDPKey names the UDP socket of an address and port, as BindKey does the TCP socket: "*:53/udp". HTTP/3 goes by its TCP socket's name.
func UDPKey(addr netip.Addr, port uint16) string { return BindKey(addr, port) + "/udp" }

// BindKey names the listener's socket at one of its Binds.
func (l *Listener) BindKey(addr netip.Addr) string {
	if l.Protocol == UDP {
		return UDPKey(addr, l.Port)
	}
	return BindKey(addr, l.Port)
}
