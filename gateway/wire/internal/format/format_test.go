package format

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"gatehouse.dev/gatehouse/gateway/config"
)

// fill gives every field below v a value of its own, so that a field that the wire loses is noticed, those added later too.
func fill(t *testing.T, v reflect.Value, count *int) {
	t.Helper()
	*count++
	switch value := v.Addr().Interface().(type) {
	case *time.Time:
		*value = time.Unix(int64(*count), 500).In(time.FixedZone("", 3600)).UTC()
		return
	case *netip.Addr:
		*value = netip.AddrFrom4([4]byte{10, 0, 0, byte(*count)})
		return
	case *netip.AddrPort:
		*value = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(*count)}), uint16(*count))
		return
	case *config.RawJSON:
		*value = config.RawJSON(fmt.Sprintf(`{"n":%d,"s":"<\u0026>"}`, *count))
		return
	case *config.Secret:
		*value = config.Secret{0, 0xff, byte(*count)}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(t, v.Field(i), count)
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), count)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(t, v.Index(0), count)
		fill(t, v.Index(1), count)
	case reflect.String:
		v.SetString(fmt.Sprintf("text <%d> ü", *count))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(*count))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uint:
		v.SetUint(uint64(*count % 200))
	case reflect.Float64, reflect.Float32:
		v.SetFloat(float64(*count) + 0.5)
	default:
		t.Fatalf("the test cannot fill a %s", v.Type())
	}
}

// TestEveryField: each field of each resource arrives, secrets included.
func TestEveryField(t *testing.T) {
	for name, message := range map[string]any{
		"listener": &config.Listener{}, "page": &Page{}, "route": &config.Route{}, "stream": &config.StreamRoute{}, "cluster": &config.Cluster{},
		"endpoints": &Endpoints{}, "certificate": &config.Certificate{},
	} {
		t.Run(name, func(t *testing.T) {
			count := 0
			fill(t, reflect.ValueOf(message).Elem(), &count)
			var resource string
			switch m := message.(type) {
			case *config.Listener:
				m.Routes, m.Streams = nil, nil
				resource = ListenerName(m.Name)
			case *config.Cluster:
				m.Endpoints = nil
				resource = ClusterName(m.Name)
			case *Page:
				resource = PageName(m.Listener, m.First)
			case *config.Route:
				resource = RouteName(m)
			case *config.StreamRoute:
				resource = StreamRouteName(m)
			case *Endpoints:
				resource = EndpointsName(m.Cluster)
			case *config.Certificate:
				resource = CertificateName(m.Name)
			}
			encoded, err := Encode(resource, message)
			if err != nil {
				t.Fatal(err)
			}
			decoded, err := Decode(encoded)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(decoded, message) {
				t.Errorf("sent %+v\ncame %+v\nas %s", message, decoded, encoded.GetResource().GetValue())
			}
			again, err := Encode(resource, decoded)
			if err != nil || again.GetVersion() != encoded.GetVersion() || len(again.GetVersion()) != 22 {
				t.Errorf("versions %q and %q, %v", encoded.GetVersion(), again.GetVersion(), err)
			}
		})
	}
}

// TestVersion: it changes with the content and with nothing else.
func TestVersion(t *testing.T) {
	at := time.Unix(1e9, 0)
	version := func(c *config.Certificate, r *config.Route) string {
		var message any = c
		if r != nil {
			message = r
		}
		encoded, err := Encode("x", message)
		if err != nil {
			t.Fatal(err)
		}
		return encoded.GetVersion()
	}
	if version(&config.Certificate{Key: config.Secret("a")}, nil) == version(&config.Certificate{Key: config.Secret("b")}, nil) {
		t.Error("two keys have one version")
	}
	if version(nil, &config.Route{Created: at.UTC()}) != version(nil, &config.Route{Created: at.In(time.FixedZone("x", 7200))}) {
		t.Error("the version depends on the time zone of the controller")
	}
	if version(&config.Certificate{}, nil) == version(nil, &config.Route{}) {
		t.Error("two kinds with the same payload have one version")
	}
}

func resource(name, kind, payload string) *discovery.Resource {
	return &discovery.Resource{Name: name, Resource: &anypb.Any{TypeUrl: kind, Value: []byte(payload)}}
}

// TestDecodeRefuses: what cannot be obeyed to the letter is an error that names the resource.
func TestDecodeRefuses(t *testing.T) {
	tests := map[string]struct {
		in   *discovery.Resource
		want string
	}{
		"no payload":      {&discovery.Resource{Name: "route/a"}, "is not known"},
		"unknown kind":    {resource("x/a", "gatehouse.dev/wire.v9.Thing", "{}"), "different versions"},
		"no JSON":         {resource("route/a", TypeRoute, "{"), "route/a: "},
		"empty":           {resource("route/a", TypeRoute, ""), "route/a: "},
		"two values":      {resource("route/a", TypeRoute, "{}{}"), "route/a: "},
		"array":           {resource("route/a", TypeRoute, "[]"), "route/a: "},
		"unknown field":   {resource("route/a", TypeRoute, `{"origin":{"kind":"HTTPRoute"},"authorization":{}}`), "authorization"},
		"field twice":     {resource("route/a", TypeRoute, `{"rules":[],"rules":[]}`), "duplicate"},
		"rule is null":    {resource("route/a", TypeRoute, `{"rules":[{"name":"0"},null]}`), "a rule is null"},
		"address":         {resource("endpoints/c", TypeEndpoints, `{"cluster":"c","addresses":["a:80"]}`), "endpoints/c: "},
		"empty address":   {resource("endpoints/c", TypeEndpoints, `{"cluster":"c","addresses":[""]}`), "endpoints/c: "},
		"name of another": {resource("cluster/a", TypeCluster, `{"name":"b"}`), "it holds cluster/b"},
		"page of another": {resource("page/l#", TypePage, `{"listener":"l","first":"x"}`), "it holds page/l#x"},
		"secret":          {resource("certificate/c", TypeCertificate, `{"name":"c","key":"s3cr3t!"}`), "not base64"},
		"secret's kind":   {resource("certificate/c", TypeCertificate, `{"name":"c","key":["s3cr3t"]}`), "base64 string"},
		"not UTF-8":       {resource("certificate/c", TypeCertificate, "{\"name\":\"c\",\"chain\":\"\xff\"}"), "UTF-8"},
		"too big":         {resource("route/a", TypeRoute, strings.Repeat(" ", MaxResource)+"{}"), "over the limit"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Decode(tt.in)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), tt.in.GetName()+": ") {
				t.Fatalf("got %+v, %v; want %q", got, err, tt.want)
			}
			if strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

// TestEncodeRefuses: what would break the message is refused where its name is known; odd bytes of a certificate's text do not.
func TestEncodeRefuses(t *testing.T) {
	for name, err := range map[string]error{
		"kind":     second(Encode("x", 7)),
		"too big":  second(Encode("x", &config.Certificate{Chain: strings.Repeat("x", MaxResource)})),
		"not JSON": second(Encode("x", &config.Route{Rules: []*config.Rule{{Filters: []config.Policy{{Payload: config.RawJSON("{")}}}}})),
		"name":     second(Encode("\xff", &config.Route{})),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if encoded, err := Encode("certificate/c", &config.Certificate{Name: "c", Chain: "a\xffb"}); err != nil {
		t.Error(err)
	} else if got, err := Decode(encoded); err != nil || got.(*config.Certificate).Chain != "a\uFFFDb" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func second(_ *discovery.Resource, err error) error { return err }

// TestPagesBegin: about one name in 64 begins a page, of names that look alike too.
func TestPagesBegin(t *testing.T) {
	const names = 100_000
	for _, pattern := range []string{"route/HTTPRoute/ns/route-%05d", "route/HTTPRoute/%d/a", "%d"} {
		begin, run, longest := 0, 0, 0
		for i := range names {
			run++
			if Begins(fmt.Sprintf(pattern, i)) {
				begin, longest, run = begin+1, max(longest, run), 0
			}
		}
		if begin < names/80 || begin > names/50 || longest > 1500 {
			t.Errorf("%s: %d of %d names begin pages, the longest has %d", pattern, begin, names, longest)
		}
	}
}

// TestAnswer: what a proxy says arrives, within bounds.
func TestAnswer(t *testing.T) {
	if detail, err := Ack(config.Applied{}); detail != nil || err != nil {
		t.Errorf("an acknowledgement without problems has details: %v, %v", detail, err)
	}
	if refused, applied, err := Answer(nil); refused != "" || len(applied.Listeners) != 0 || err != nil {
		t.Errorf("got %q, %v, %v", refused, applied, err)
	}
	long := errors.New(strings.Repeat("ü", 100_000))
	problems := map[string]error{}
	for i := range 2000 {
		problems[fmt.Sprint(i)] = long
	}
	detail, err := Ack(config.Applied{Listeners: problems, Clusters: map[string]error{"c": errors.New("bad \xff")}})
	if err != nil {
		t.Fatal(err)
	}
	if size := proto.Size(detail); size > 2<<20 {
		t.Errorf("an acknowledgement has %d bytes", size)
	}
	refused, applied, err := Answer(detail)
	if refused != "" || err != nil || len(applied.Listeners) != maxProblems || applied.Clusters["c"] != "bad \uFFFD" {
		t.Errorf("got %q, %d, %v, %v", refused, len(applied.Listeners), applied.Clusters, err)
	}
	if refused, _, err := Answer(Nack(long)); err != nil || len(refused) > maxReason || !strings.HasPrefix(refused, "üü") {
		t.Errorf("got %d bytes, %v", len(refused), err)
	}
	if detail, err = Ack(config.Applied{Clusters: map[string]error{strings.Repeat("n", maxName+1): long}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Answer(detail); err == nil {
		t.Error("a name beyond the bound is taken")
	}
	if refused, _, _ := Answer(Nack(errors.New(""))); refused == "" {
		t.Error("a refusal without a reason is none")
	}
	for _, text := range []string{"", "+", "x", "-1", "1++", "18446744073709551616"} {
		if _, _, err := ParseVersion(text); err == nil {
			t.Errorf("version %q is taken", text)
		}
	}
	if v, more, err := ParseVersion(Version(18446744073709551615, true)); v != 18446744073709551615 || !more || err != nil {
		t.Errorf("got %d, %v, %v", v, more, err)
	}
}

// FuzzDecode: whatever arrives is an error or something that is written down as the same again.
func FuzzDecode(f *testing.F) {
	kinds := []string{TypeListener, TypePage, TypeRoute, TypeStreamRoute, TypeCluster, TypeEndpoints, TypeCertificate, ""}
	f.Add("listener/ns/a/http", uint8(0), []byte(`{"name":"ns/a/http","port":80,"protocol":"HTTP","addresses":["::1"],"tls":{"certificates":["c"]}}`))
	f.Add("page/l#", uint8(1), []byte(`{"listener":"l","routes":["route/HTTPRoute/ns/r"],"next":"x"}`))
	f.Add("route/r", uint8(2), []byte(`{"created":"2026-01-02T03:04:05Z","rules":[{"name":"0","requestTimeout":5,"filters":[{"kind":"k","payload":{"a":1}}]}]}`))
	f.Add("route/r", uint8(2), []byte(`{"rules":[null]}`))
	f.Add("stream/r/0", uint8(3), []byte(`{"rule":"0","backends":[{"cluster":"c","weight":1}]}`))
	f.Add("cluster/c", uint8(4), []byte(`{"name":"c","protocol":"h2","persistence":{"name":"n","key":"AAE="}}`))
	f.Add("endpoints/c", uint8(5), []byte(`{"cluster":"c","addresses":["192.0.2.1:80","[::1%eth0]:1"]}`))
	f.Add("certificate/c", uint8(6), []byte(`{"name":"c","key":"AAE="}`))
	f.Fuzz(func(t *testing.T, name string, kind uint8, payload []byte) {
		message, err := Decode(resource(name, kinds[int(kind)%len(kinds)], string(payload)))
		if err != nil {
			return
		}
		first, err := Encode(name, message)
		if err != nil {
			if strings.ToValidUTF8(name, "") != name {
				return
			}
			t.Fatalf("%s was read and cannot be written: %v", payload, err)
		}
		back, err := Decode(first)
		if err != nil {
			t.Fatalf("%s was written as %s, which cannot be read: %v", payload, first.GetResource().GetValue(), err)
		}
		second, err := Encode(name, back)
		if err != nil || second.GetVersion() != first.GetVersion() {
			t.Fatalf("%s is written as %s and then as %s, %v", payload, first.GetResource().GetValue(), second.GetResource().GetValue(), err)
		}
	})
}

// FuzzAnswer: whatever a proxy says is an error or within bounds.
func FuzzAnswer(f *testing.F) {
	f.Add(int32(0), "", TypeApplied, []byte(`{"listeners":{"a":"b"},"clusters":{"c":"d"}}`))
	f.Add(int32(0), "", TypeApplied, []byte(`{"listeners":null}`))
	f.Add(int32(3), "why", "", []byte(nil))
	f.Fuzz(func(t *testing.T, code int32, message, kind string, payload []byte) {
		detail := &statuspb.Status{Code: code, Message: message, Details: []*anypb.Any{{TypeUrl: kind, Value: payload}}}
		refused, applied, err := Answer(detail)
		if (code != 0) != (refused != "") && err == nil || len(refused) > maxReason {
			t.Fatalf("code %d is refused with %q, %v", code, refused, err)
		}
		for name, text := range applied.Listeners {
			if err == nil && len(text) > maxProblem {
				t.Fatalf("%s has %d bytes", name, len(text))
			}
		}
	})
}
