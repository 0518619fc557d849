package h2

import (
	"unsafe"

	"gatehouse.dev/gatehouse/gateway/codec/section"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// TableSize is the size of the dynamic table that the gateway lets its peers use, in bytes as RFC 7541 4.1 counts them: the protocol's
// initial value, so that no setting need announce it.
const TableSize = 4096

// table is the dynamic table of who decodes (RFC 7541 2.3.2). It has two rings: of entries, and of the bytes of their names and values. The
// latter is twice as large as it may become full, so that every string lies in one piece: when its end is reached, what is left moves to
// its start.
//
//	data     ......[path /a][x-id 7][cookie k=v]....        entries: oldest ... newest
//	               ^head                        ^len
//
// What leaves the table is overwritten sooner or later, so that strings go out as copies. Names that the static table or exchange has are
// neither stored nor copied.
type table struct {
	data    []byte
	head    int     // where the oldest entry's bytes begin
	entries []entry // a ring with a power of two of places
	first   int     // the oldest entry's place
	count   int
	size    uint32 // as RFC 7541 4.1 counts
	limit   uint32 // what the encoder chose, at most the setting
}

// entry is one field of the table.
type entry struct {
	known string      // the name, when it is a constant; else "" and the name stands before the value
	id    exchange.ID // the name's number
	valid bool        // section.Check found nothing wrong
	at    int32       // where the bytes begin in data
	name  int32       // length of the name in data
	value int32       // length of the value
}

func (e *entry) size() uint32 {
	return uint32(len(e.known)) + uint32(e.name) + uint32(e.value) + section.Overhead
}

// get returns the i-th newest entry, counted from 0, or nil.
func (t *table) get(i uint64) *entry {
	if i >= uint64(t.count) {
		return nil
	}
	return &t.entries[(t.first+t.count-1-int(i))&(len(t.entries)-1)]
}

// nameOf returns a copy of an entry's name, or the constant.
func (t *table) nameOf(e *entry, arena *section.Arena) string {
	if e.known != "" {
		return e.known
	}
	return arena.Copy(t.data[e.at : e.at+e.name])
}

// valueOf returns a copy of an entry's value.
func (t *table) valueOf(e *entry, arena *section.Arena) string {
	from := e.at + e.name
	return arena.Copy(t.data[from : from+e.value])
}

// setLimit makes the table smaller or allows it to grow (RFC 7541 4.3).
func (t *table) setLimit(n uint32) {
	t.limit = n
	t.evict(0)
}

// evict makes room for n bytes.
func (t *table) evict(n uint32) {
	for t.count > 0 && t.size+n > t.limit {
		e := &t.entries[t.first]
		t.size -= e.size()
		t.head = int(e.at + e.name + e.value)
		t.first = (t.first + 1) & (len(t.entries) - 1)
		t.count--
	}
	if t.count == 0 {
		t.head, t.data = 0, t.data[:0]
	}
}

// add makes a field the newest entry; its strings must not lie in the table. A field larger than the table empties it (RFC 7541 4.4).
func (t *table) add(f exchange.Field, constant, valid bool) {
	size := uint32(len(f.Name)+len(f.Value)) + section.Overhead
	t.evict(size)
	if size > t.limit {
		return
	}
	e := entry{id: f.ID, valid: valid, value: int32(len(f.Value))}
	name := f.Name
	if constant {
		e.known, name = name, ""
	}
	e.name = int32(len(name))
	t.makeRoom(len(name) + len(f.Value))
	e.at = int32(len(t.data))
	t.data = append(append(t.data, name...), f.Value...)
	if t.count == len(t.entries) {
		t.growEntries()
	}
	t.entries[(t.first+t.count)&(len(t.entries)-1)] = e
	t.count++
	t.size += size
}

// makeRoom sees to n free bytes at the end of data: in a larger one while it is small, by moving what is left to the start otherwise.
func (t *table) makeRoom(n int) {
	if len(t.data)+n <= cap(t.data) {
		return
	}
	used := len(t.data) - t.head
	to := t.data[:0]
	if used+n > cap(t.data)/2 {
		to = make([]byte, 0, max(256, 2*(used+n)))
	}
	t.data = append(to, t.data[t.head:]...)
	for i := range t.count {
		t.entries[(t.first+i)&(len(t.entries)-1)].at -= int32(t.head)
	}
	t.head = 0
}

func (t *table) growEntries() {
	larger := make([]entry, max(8, 2*len(t.entries)))
	for i := range t.count {
		larger[i] = t.entries[(t.first+i)&(len(t.entries)-1)]
	}
	t.entries, t.first = larger, 0
}

// view returns b as a string that changes with b.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
