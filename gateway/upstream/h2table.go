package upstream

// h2Table finds the open streams of a connection by their identifiers. Identifiers are handed out one after another, so that nearly every
// stream stands where its identifier says; one that is taken there by a stream of long ago goes to the next free place.
//
//	8 places, streams 9, 11, 13, and 1, open for long     .  .  .  .  9  11 13 .      1 would stand at 0
//	                                                      1
//	stream 17 wants place 0 as well                       1  17 .  .  9  11 13 .
//
// It is never more than half full.
type h2Table struct {
	places []h2Place // a power of two
	count  int
}

type h2Place struct {
	id     uint32 // 0: free
	stream *h2Stream
}

// home is where a stream should stand.
func (t *h2Table) home(id uint32) int { return int(id>>1) & (len(t.places) - 1) }

// get returns the stream of an identifier, or nil.
func (t *h2Table) get(id uint32) *h2Stream {
	if t.count == 0 {
		return nil
	}
	for i := t.home(id); t.places[i].id != 0; i = (i + 1) & (len(t.places) - 1) {
		if t.places[i].id == id {
			return t.places[i].stream
		}
	}
	return nil
}

// put adds a stream whose identifier is not there yet.
func (t *h2Table) put(id uint32, s *h2Stream) {
	if 2*(t.count+1) > len(t.places) {
		t.grow()
	}
	i := t.home(id)
	for t.places[i].id != 0 {
		i = (i + 1) & (len(t.places) - 1)
	}
	t.places[i] = h2Place{id, s}
	t.count++
}

func (t *h2Table) grow() {
	old := t.places
	t.places = make([]h2Place, max(8, 2*len(old)))
	t.count = 0
	for _, p := range old {
		if p.id != 0 {
			t.put(p.id, p.stream)
		}
	}
}

// remove takes a stream out. Those behind it, up to the next free place, move up where they may, so that get still finds them.
func (t *h2Table) remove(id uint32) {
	if t.get(id) == nil {
		return
	}
	mask := len(t.places) - 1
	hole := t.home(id)
	for t.places[hole].id != id {
		hole = (hole + 1) & mask
	}
	for i := (hole + 1) & mask; t.places[i].id != 0; i = (i + 1) & mask {
		// It may move when its home is not between the hole and itself.
		if (i-t.home(t.places[i].id))&mask >= (i-hole)&mask {
			t.places[hole] = t.places[i]
			hole = i
		}
	}
	t.places[hole] = h2Place{}
	t.count--
}

// all returns the places that are taken.
func (t *h2Table) all() []h2Place {
	out := make([]h2Place, 0, t.count)
	for _, p := range t.places {
		if p.id != 0 {
			out = append(out, p)
		}
	}
	return out
}
