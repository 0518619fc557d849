package schema

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"strings"

	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The bounds of discovery.k8s.io/v1 EndpointSlice.
const (
	maxEndpoints          = 1000
	maxEndpointAddresses  = 100
	maxEndpointSlicePorts = 20000
)

func protocols() []corev1.Protocol {
	return []corev1.Protocol{corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP}
}

// invalid reports each message as an error of the same value.
func invalid(path *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, message := range messages {
		errs = append(errs, field.Invalid(path, value, message))
	}
	return errs
}

func checkProtocol(path *field.Path, protocol corev1.Protocol) field.ErrorList {
	if protocol == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	for _, p := range protocols() {
		if p == protocol {
			return nil
		}
	}
	return field.ErrorList{field.NotSupported(path, protocol, protocols())}
}

func completeService(s *corev1.Service) {
	s.Status = corev1.ServiceStatus{}
	if s.Spec.Type == "" {
		s.Spec.Type = corev1.ServiceTypeClusterIP
	}
	if s.Spec.SessionAffinity == "" {
		s.Spec.SessionAffinity = corev1.ServiceAffinityNone
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.Protocol == "" {
			p.Protocol = corev1.ProtocolTCP
		}
		if p.TargetPort == (intstr.IntOrString{}) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
}

func checkService(s *corev1.Service) field.ErrorList {
	spec := field.NewPath("spec")
	var errs field.ErrorList
	headless := s.Spec.ClusterIP == corev1.ClusterIPNone
	switch s.Spec.Type {
	case corev1.ServiceTypeExternalName:
		if s.Spec.ClusterIP != "" {
			errs = append(errs, field.Forbidden(spec.Child("clusterIP"), "may not be set for ExternalName services"))
		}
		if s.Spec.ExternalName == "" {
			errs = append(errs, field.Required(spec.Child("externalName"), ""))
		} else {
			errs = append(errs, invalid(spec.Child("externalName"), s.Spec.ExternalName, validation.IsDNS1123Subdomain(s.Spec.ExternalName))...)
		}
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
		if len(s.Spec.Ports) == 0 && !headless {
			errs = append(errs, field.Required(spec.Child("ports"), ""))
		}
		if headless && s.Spec.Type != corev1.ServiceTypeClusterIP {
			errs = append(errs, field.Invalid(spec.Child("clusterIPs").Index(0), s.Spec.ClusterIP,
				fmt.Sprintf("may not be set to 'None' for %s services", s.Spec.Type)))
		}
	default:
		errs = append(errs, field.NotSupported(spec.Child("type"), s.Spec.Type, []corev1.ServiceType{corev1.ServiceTypeClusterIP,
			corev1.ServiceTypeExternalName, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort}))
	}
	if s.Spec.ClusterIP != "" && !headless {
		errs = append(errs, validation.IsValidIPForLegacyField(spec.Child("clusterIPs").Index(0), s.Spec.ClusterIP, true, nil)...)
	}
	if a := s.Spec.SessionAffinity; a != corev1.ServiceAffinityNone && a != corev1.ServiceAffinityClientIP {
		errs = append(errs, field.NotSupported(spec.Child("sessionAffinity"), a,
			[]corev1.ServiceAffinity{corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone}))
	}
	errs = append(errs, metavalidation.ValidateLabels(s.Spec.Selector, spec.Child("selector"))...)
	return append(errs, checkServicePorts(spec.Child("ports"), s.Spec.Ports)...)
}

func checkServicePorts(path *field.Path, ports []corev1.ServicePort) field.ErrorList {
	var errs field.ErrorList
	names, numbers := map[string]bool{}, map[corev1.ServicePort]bool{}
	for i, p := range ports {
		at := path.Index(i)
		switch {
		case p.Name == "" && len(ports) > 1:
			errs = append(errs, field.Required(at.Child("name"), ""))
		case p.Name != "" && names[p.Name]:
			errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
		case p.Name != "":
			errs = append(errs, invalid(at.Child("name"), p.Name, validation.IsDNS1123Label(p.Name))...)
			names[p.Name] = true
		}
		errs = append(errs, invalid(at.Child("port"), p.Port, validation.IsValidPortNum(int(p.Port)))...)
		errs = append(errs, checkProtocol(at.Child("protocol"), p.Protocol)...)
		if p.TargetPort.Type == intstr.Int {
			errs = append(errs, invalid(at.Child("targetPort"), p.TargetPort.IntVal, validation.IsValidPortNum(p.TargetPort.IntValue()))...)
		} else {
			errs = append(errs, invalid(at.Child("targetPort"), p.TargetPort.StrVal, validation.IsValidPortName(p.TargetPort.StrVal))...)
		}
		if p.AppProtocol != nil {
			errs = append(errs, invalid(at.Child("appProtocol"), *p.AppProtocol, validation.IsQualifiedName(*p.AppProtocol))...)
		}
		key := corev1.ServicePort{Protocol: p.Protocol, Port: p.Port}
		if numbers[key] {
			errs = append(errs, field.Duplicate(at, key))
		}
		numbers[key] = true
	}
	return errs
}

func completeEndpointSlice(s *discoveryv1.EndpointSlice) {
	for i := range s.Ports {
		p := &s.Ports[i]
		if p.Name == nil {
			p.Name = new("")
		}
		if p.Protocol == nil {
			p.Protocol = new(corev1.ProtocolTCP)
		}
	}
}

func checkEndpointSlice(s *discoveryv1.EndpointSlice) field.ErrorList {
	var errs field.ErrorList
	types := []discoveryv1.AddressType{discoveryv1.AddressTypeFQDN, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6}
	switch s.AddressType {
	case "":
		errs = append(errs, field.Required(field.NewPath("addressType"), ""))
	case discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN:
	default:
		errs = append(errs, field.NotSupported(field.NewPath("addressType"), s.AddressType, types))
	}
	endpoints := field.NewPath("endpoints")
	if len(s.Endpoints) > maxEndpoints {
		errs = append(errs, field.TooMany(endpoints, len(s.Endpoints), maxEndpoints))
	}
	for i, e := range s.Endpoints {
		addresses := endpoints.Index(i).Child("addresses")
		switch n := len(e.Addresses); {
		case n == 0:
			errs = append(errs, field.Required(addresses, "must contain at least 1 address"))
		case n > maxEndpointAddresses:
			errs = append(errs, field.TooMany(addresses, n, maxEndpointAddresses))
		}
		for j, address := range e.Addresses {
			errs = append(errs, checkAddress(addresses.Index(j), s.AddressType, address)...)
		}
		if e.Hostname != nil {
			errs = append(errs, invalid(endpoints.Index(i).Child("hostname"), *e.Hostname, validation.IsDNS1123Label(*e.Hostname))...)
		}
	}
	return append(errs, checkEndpointPorts(s.Ports)...)
}

// checkAddress differs from a cluster in one thing: a loopback address is allowed, since in standalone mode services may run beside
// the gateway.
func checkAddress(path *field.Path, kind discoveryv1.AddressType, address string) field.ErrorList {
	if kind == discoveryv1.AddressTypeFQDN {
		return validation.IsFullyQualifiedDomainName(path, address)
	}
	if kind != discoveryv1.AddressTypeIPv4 && kind != discoveryv1.AddressTypeIPv6 {
		return nil // said once, of addressType
	}
	if errs := validation.IsValidIPForLegacyField(path, address, true, nil); len(errs) > 0 {
		return errs
	}
	ip, err := netip.ParseAddr(address)
	switch {
	case err != nil || ip.Zone() != "":
		return field.ErrorList{field.Invalid(path, address, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")}
	case kind == discoveryv1.AddressTypeIPv4 && !ip.Is4():
		return field.ErrorList{field.Invalid(path, address, "must be an IPv4 address")}
	case kind == discoveryv1.AddressTypeIPv6 && !ip.Is6():
		return field.ErrorList{field.Invalid(path, address, "must be an IPv6 address")}
	case ip.IsUnspecified():
		return field.ErrorList{field.Invalid(path, address, fmt.Sprintf("may not be unspecified (%v)", address))}
	case ip.IsLinkLocalUnicast():
		return field.ErrorList{field.Invalid(path, address, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")}
	case ip.IsLinkLocalMulticast():
		return field.ErrorList{field.Invalid(path, address, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")}
	}
	return nil
}

func checkEndpointPorts(ports []discoveryv1.EndpointPort) field.ErrorList {
	path := field.NewPath("ports")
	var errs field.ErrorList
	if len(ports) > maxEndpointSlicePorts {
		errs = append(errs, field.TooMany(path, len(ports), maxEndpointSlicePorts))
	}
	names := map[string]bool{}
	for i, p := range ports {
		at := path.Index(i)
		if *p.Name != "" {
			errs = append(errs, invalid(at.Child("name"), *p.Name, validation.IsDNS1123Label(*p.Name))...)
		}
		if names[*p.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), *p.Name))
		}
		names[*p.Name] = true
		errs = append(errs, checkProtocol(at.Child("protocol"), *p.Protocol)...)
		if p.Port != nil {
			errs = append(errs, invalid(at.Child("port"), *p.Port, validation.IsValidPortNum(int(*p.Port)))...)
		}
		if p.AppProtocol != nil {
			errs = append(errs, invalid(at.Child("appProtocol"), *p.AppProtocol, validation.IsQualifiedName(*p.AppProtocol))...)
		}
	}
	return errs
}

func completeSecret(s *corev1.Secret) {
	if s.Type == "" {
		s.Type = corev1.SecretTypeOpaque
	}
	for key, value := range s.StringData {
		if s.Data == nil {
			s.Data = map[string][]byte{}
		}
		s.Data[key] = []byte(value)
	}
	s.StringData = nil
}

// checkSecret never names a value.
func checkSecret(s *corev1.Secret) field.ErrorList {
	data := field.NewPath("data")
	var errs field.ErrorList
	size := 0
	for key, value := range s.Data {
		errs = append(errs, invalid(data.Key(key), key, validation.IsConfigMapKey(key))...)
		size += len(value)
	}
	if size > corev1.MaxSecretSize {
		errs = append(errs, field.TooLong(data, "", corev1.MaxSecretSize))
	}
	if s.Type != corev1.SecretTypeTLS {
		return errs
	}
	chain, key := s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey]
	if s.Annotations[DevelopmentCertificate] != "" && len(chain) == 0 && len(key) == 0 {
		return errs
	}
	for _, name := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
		if _, ok := s.Data[name]; !ok {
			errs = append(errs, field.Required(data.Key(name), ""))
		}
	}
	return errs
}

func checkConfigMap(c *corev1.ConfigMap) field.ErrorList {
	var errs field.ErrorList
	size := 0
	for key, value := range c.Data {
		errs = append(errs, invalid(field.NewPath("data").Key(key), key, validation.IsConfigMapKey(key))...)
		if _, twice := c.BinaryData[key]; twice {
			errs = append(errs, field.Invalid(field.NewPath("data").Key(key), key, "duplicate of key present in binaryData"))
		}
		size += len(value)
	}
	for key, value := range c.BinaryData {
		errs = append(errs, invalid(field.NewPath("binaryData").Key(key), key, validation.IsConfigMapKey(key))...)
		size += len(value)
	}
	if size > corev1.MaxSecretSize {
		errs = append(errs, field.TooLong(field.NewPath(""), "", corev1.MaxSecretSize))
	}
	return errs
}

// checkTrustBundle: the name begins with the signer's, "/" as ":", and what it holds are certificates and nothing else.
func checkTrustBundle(b *certificatesv1beta1.ClusterTrustBundle) field.ErrorList {
	var errs field.ErrorList
	name := field.NewPath("metadata", "name")
	switch signer := strings.ReplaceAll(b.Spec.SignerName, "/", ":"); {
	case signer == "" && strings.Contains(b.Name, ":"):
		errs = append(errs, field.Invalid(name, b.Name, "ClusterTrustBundle without signer name must not have \":\" in its name"))
	case signer != "" && !strings.HasPrefix(b.Name, signer+":"):
		errs = append(errs, field.Invalid(name, b.Name, fmt.Sprintf("ClusterTrustBundle for signerName %s must be named with prefix %s:",
			b.Spec.SignerName, signer)))
	}
	bundle, count := field.NewPath("spec", "trustBundle"), 0
	for rest := []byte(b.Spec.TrustBundle); ; count++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			errs = append(errs, field.Invalid(bundle, "<value omitted>", fmt.Sprintf("entry %d has bad block type: %v", count, block.Type)))
		} else if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			errs = append(errs, field.Invalid(bundle, "<value omitted>", fmt.Sprintf("entry %d does not parse as x509", count)))
		}
	}
	if count == 0 {
		errs = append(errs, field.Invalid(bundle, "<value omitted>", "at least one trust anchor must be provided"))
	}
	return errs
}
