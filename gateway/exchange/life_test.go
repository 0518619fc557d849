package exchange

import (
	"context"
	"errors"
	"testing"
)

type interrupts int

func (i *interrupts) Interrupt() { *i++ }

func TestLifeEndInterruptsWhatIsAttached(t *testing.T) {
	var l Life
	var first, second interrupts
	if !l.Attach(&first) || !l.Detach() || !l.Attach(&second) {
		t.Fatal("a life that lasts cannot be attached to")
	}
	cause := NewFault(RequestTimeout, nil)
	l.End(cause)
	l.End(NewFault(ClientAborted, nil))
	if first != 0 || second != 1 {
		t.Errorf("interrupted %d and %d times, want 0 and 1", first, second)
	}
	if l.Detach() || l.Attach(&first) || l.Fault() != cause || !errors.Is(l.Err(), context.Canceled) {
		t.Errorf("after its end: fault %v, err %v", l.Fault(), l.Err())
	}
}

func TestLifeEndsWithItsParent(t *testing.T) {
	var parent, child Life
	var socket interrupts
	child.Begin(&parent)
	child.Attach(&socket)
	cause := NewFault(ClientAborted, nil)
	parent.End(cause)
	if socket != 1 || child.Fault() != cause || child.Leave() {
		t.Errorf("the child was interrupted %d times, fault %v", socket, child.Fault())
	}
	late := child.Fresh()
	late.Begin(&parent)
	if !late.Over() || late.Fault() != cause {
		t.Error("a life begun under one that is over lasts")
	}
}

func TestLifeLeaveLeavesTheParentGoing(t *testing.T) {
	var parent, child Life
	child.Begin(&parent)
	if !child.Leave() || !child.Over() || child.Fault() != nil || parent.Over() {
		t.Errorf("child over %v with %v, parent over %v", child.Over(), child.Fault(), parent.Over())
	}
	parent.End(NewFault(ClientAborted, nil))
	if child.Fault() != nil {
		t.Error("a life that left was ended by its parent")
	}
}

func TestLifeIsAContext(t *testing.T) {
	l := &Life{}
	derived, cancel := context.WithCancel(l)
	defer cancel()
	l.End(nil)
	<-derived.Done()
	if fresh := l.Fresh(); fresh == l || fresh.Err() != nil || l.Err() == nil {
		t.Error("a life whose channel was handed out is used again")
	}
	other := &Life{}
	other.End(nil)
	<-other.Done()
}

func TestExchangeReusesItsMemory(t *testing.T) {
	x := &Exchange{}
	x.Reset()
	use := func() {
		x.Req.Fields.Add("a", "b")
		x.Mirrors = append(x.Mirrors, "m")
		x.Slots = append(x.Slots, nil)
		x.Life.Attach(new(interrupts))
		if got := x.Keep([]byte("kept")); got != "kept" {
			t.Errorf("kept %q", got)
		}
		x.Life.End(nil)
		x.Reset()
	}
	use()
	if allocs := testing.AllocsPerRun(100, use); allocs > 1 { // the test's own Interrupter
		t.Errorf("%v allocations", allocs)
	}
	if len(x.Req.Fields)+len(x.Mirrors)+len(x.Slots) != 0 || x.Life.Over() || x.ReqBody != NoBody {
		t.Errorf("not as new: %+v", x)
	}
}

func TestKeepLeavesEarlierViewsAlone(t *testing.T) {
	x := &Exchange{}
	var views []string
	for range 100 {
		views = append(views, x.Keep([]byte("0123456789abcdef")))
	}
	for _, v := range views {
		if v != "0123456789abcdef" {
			t.Fatalf("a view became %q", v)
		}
	}
}
