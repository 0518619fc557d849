package main

import (
	"net/http"
	"strconv"
)

// book is what the shop knows about one book.
type book struct {
	ID        int    `json:"id"`
	Title     string `json:"title"`
	Author    string `json:"author"`
	Year      int    `json:"year"`
	Pages     int    `json:"pages"`
	Publisher string `json:"publisher"`
	Language  string `json:"language"`
	// Summary is shown under the title.
	Summary string `json:"summary"`

	ratings map[string]int
	reviews []review
}

// review is one reader's opinion. Rating is nil in version 1 of the service.
type review struct {
	Reviewer string  `json:"reviewer"`
	Text     string  `json:"text"`
	Rating   *rating `json:"rating,omitempty"`
}

// rating is the stars of one review, or why there are none.
type rating struct {
	Stars int    `json:"stars,omitempty"`
	Color string `json:"color,omitempty"`
	Error string `json:"error,omitempty"`
}

// catalogue returns the shop's books; the id is the index.
func catalogue() []book {
	return []book{
		{
			ID: 0, Title: "The Tempest", Author: "William Shakespeare", Year: 1611, Pages: 136, Publisher: "Harbour Classics", Language: "English",
			Summary: "A duke robbed of his dukedom, an island full of noises, and a storm that was ordered in advance.",
			ratings: map[string]int{"Miranda": 5, "Sebastian": 3},
			reviews: []review{
				{Reviewer: "Miranda", Text: "O brave new world! Begins with a shipwreck and only gets better. I wept at the chess game."},
				{Reviewer: "Sebastian", Text: "The weather was terrible and the hotel had no staff to speak of. The songs are good."},
			},
		},
		{
			ID: 1, Title: "Moby-Dick", Author: "Herman Melville", Year: 1851, Pages: 635, Publisher: "Harbour Classics", Language: "English",
			Summary: "A captain, a whale, and everything that can be said about rope.",
			ratings: map[string]int{"Starbuck": 2, "Queequeg": 5},
			reviews: []review{
				{Reviewer: "Starbuck", Text: "Warned everyone. Nobody listened. Also, far too many whales for a book about a whale."},
				{Reviewer: "Queequeg", Text: "Excellent carpentry. The coffin alone is worth the price."},
			},
		},
		{
			ID: 2, Title: "Middlemarch", Author: "George Eliot", Year: 1871, Pages: 880, Publisher: "Harbour Classics", Language: "English",
			Summary: "A whole town, and how much of the good in the world depends on people nobody writes about.",
			ratings: map[string]int{"Dorothea": 4, "Casaubon": 1},
			reviews: []review{
				{Reviewer: "Dorothea", Text: "I meant to read a chapter and it is morning. Do not marry for the footnotes."},
				{Reviewer: "Casaubon", Text: "Insufficiently annotated. My own forthcoming work treats the subject exhaustively."},
			},
		},
	}
}

// bookOf returns the book that the path's {id} names, or answers 404.
func bookOf(w http.ResponseWriter, r *http.Request, books []book) (book, bool) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil || id < 0 || id >= len(books) {
		writeError(w, http.StatusNotFound, "no book %q: ids go from 0 to %d", r.PathValue("id"), len(books)-1)
		return book{}, false
	}
	return books[id], true
}
