// Package clusterdns is a cluster's name server: it answers for Services and for the endpoints of headless ones, and for nothing else. There is
// no server behind it, so every other name does not exist.
//
//	web.shop.svc.cluster.local            A      the Service's cluster address
//	db.shop.svc.cluster.local             A      the ready endpoints of a headless Service
//	db-0.db.shop.svc.cluster.local        A      the endpoint with that host name
//	10-88-0-7.db.shop.svc.cluster.local   A      the endpoint with that address
//	old.shop.svc.cluster.local            CNAME  of an ExternalName Service
//
// A name that exists has an empty answer for every other type, AAAA above all.
package clusterdns

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	listerscorev1 "k8s.io/client-go/listers/core/v1"
	listersdiscoveryv1 "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
)

// Seconds for which an answer may be kept. Tests change Services and look again.
const ttl = 1

// Server answers from the objects that informers hold.
type Server struct {
	zone     string
	services listerscorev1.ServiceLister
	slices   listersdiscoveryv1.EndpointSliceLister
	synced   []cache.InformerSynced
}

// New makes a server for the names below svc.DOMAIN.
func New(factory informers.SharedInformerFactory, domain string) *Server {
	services, endpointSlices := factory.Core().V1().Services(), factory.Discovery().V1().EndpointSlices()
	return &Server{
		zone: ".svc." + dns.Fqdn(domain), services: services.Lister(), slices: endpointSlices.Lister(),
		synced: []cache.InformerSynced{services.Informer().HasSynced, endpointSlices.Informer().HasSynced},
	}
}

// Run answers over UDP and TCP on an address until ctx ends.
func (s *Server) Run(ctx context.Context, factory informers.SharedInformerFactory, address netip.AddrPort) error {
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), s.synced...) {
		return ctx.Err()
	}
	packets, err := net.ListenPacket("udp", address.String())
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address.String())
	if err != nil {
		packets.Close()
		return err
	}
	servers := []*dns.Server{{PacketConn: packets, Handler: s}, {Listener: listener, Handler: s}}
	results := make(chan error, len(servers))
	for _, server := range servers {
		go func() { results <- server.ActivateAndServe() }()
	}
	select {
	case <-ctx.Done():
	case err = <-results:
	}
	for _, server := range servers {
		err = errors.Join(err, server.Shutdown())
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// ServeDNS implements dns.Handler.
func (s *Server) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	answer := new(dns.Msg)
	answer.SetReply(query)
	answer.Authoritative = true
	if len(query.Question) != 1 {
		answer.Rcode = dns.RcodeFormatError
	} else {
		q := query.Question[0]
		records, exists := s.find(q.Name)
		if !exists {
			answer.Rcode = dns.RcodeNameError
		}
		for _, record := range records {
			if kind := record.Header().Rrtype; kind == q.Qtype || kind == dns.TypeCNAME {
				answer.Answer = append(answer.Answer, record)
			}
		}
	}
	if w.RemoteAddr().Network() == "udp" {
		size := dns.MinMsgSize
		if option := query.IsEdns0(); option != nil {
			size = int(max(option.UDPSize(), dns.MinMsgSize))
		}
		answer.Truncate(size)
	}
	_ = w.WriteMsg(answer) // the client asks again
}

// find returns the records of a name, and whether it exists.
func (s *Server) find(name string) ([]dns.RR, bool) {
	rest, ok := strings.CutSuffix(strings.ToLower(name), s.zone)
	if !ok {
		return nil, false
	}
	labels := strings.Split(rest, ".")
	host := ""
	switch len(labels) {
	case 2:
	case 3:
		host, labels = labels[0], labels[1:]
	default:
		return nil, false
	}
	service, err := s.services.Services(labels[1]).Get(labels[0])
	if err != nil {
		return nil, false
	}
	switch {
	case service.Spec.Type == corev1.ServiceTypeExternalName:
		record := &dns.CNAME{Hdr: header(name, dns.TypeCNAME), Target: dns.Fqdn(service.Spec.ExternalName)}
		return []dns.RR{record}, host == ""
	case service.Spec.ClusterIP == corev1.ClusterIPNone:
		addresses := s.endpoints(service, host)
		return records(name, addresses), host == "" || len(addresses) > 0
	}
	address, err := netip.ParseAddr(service.Spec.ClusterIP)
	if err != nil || host != "" {
		return nil, false
	}
	return records(name, []netip.Addr{address}), true
}

func header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

func records(name string, addresses []netip.Addr) []dns.RR {
	var list []dns.RR
	for _, address := range addresses {
		list = append(list, &dns.A{Hdr: header(name, dns.TypeA), A: address.AsSlice()})
	}
	return list
}

// endpoints returns the addresses of a headless Service: of all its ready endpoints, or of the one that host names.
func (s *Server) endpoints(service *corev1.Service, host string) []netip.Addr {
	selector := labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: service.Name})
	list, err := s.slices.EndpointSlices(service.Namespace).List(selector)
	if err != nil {
		return nil
	}
	var addresses []netip.Addr
	for _, slice := range list {
		if slice.AddressType != discoveryv1.AddressTypeIPv4 {
			continue
		}
		for _, endpoint := range slice.Endpoints {
			// A condition that is not known counts as true (EndpointConditions.ready).
			if ready := endpoint.Conditions.Ready; ready != nil && !*ready && !service.Spec.PublishNotReadyAddresses {
				continue
			}
			for _, text := range endpoint.Addresses {
				address, err := netip.ParseAddr(text)
				if err == nil && (host == "" || named(endpoint, text, host)) {
					addresses = append(addresses, address)
				}
			}
		}
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	return slices.Compact(addresses)
}

func named(endpoint discoveryv1.Endpoint, address, host string) bool {
	hostname := ""
	if endpoint.Hostname != nil {
		hostname = *endpoint.Hostname
	}
	return cmp.Or(hostname, strings.ReplaceAll(address, ".", "-")) == host
}
