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
	}
	return errors.Join(problems...)
}

func (l *Listener) validate(certificates map[string]bool) (problems []error) {
	if l.Port == 0 {
		problems = append(problems, fmt.Errorf("listener %s has no port", l.Name))
	}
	if (l.Protocol == HTTPS) != (l.TLS != nil) {
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
		for _, b := range rule.Backends {
			if b.Invalid == "" && !clusters[b.Cluster] {
				problems = append(problems, fmt.Errorf("%s rule %s: there is no cluster %s", r.Origin, rule.Name, b.Cluster))
			}
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
