//go:build !linux

package netns

import (
	"context"
	"errors"
	"os"
)

// Gate stands in for the Gate of Linux; nothing makes one.
type Gate struct{}

// Listeners stand in for those of Linux.
type Listeners struct{ TCP, DNS *os.File }

// Uplink stands in for the Uplink of Linux; nothing makes one.
type Uplink struct{}

// These report errors.ErrUnsupported.
func (l Listeners) Close() error { return errors.ErrUnsupported }

func (g *Gate) Listen() (Listeners, error)                 { return Listeners{}, errors.ErrUnsupported }
func (g *Gate) Attach(box *os.File) error                  { return errors.ErrUnsupported }
func (g *Gate) Verify(box *os.File) error                  { return errors.ErrUnsupported }
func (g *Gate) Do(f func() error) error                    { return errors.ErrUnsupported }
func (g *Gate) Close() error                               { return errors.ErrUnsupported }
func (g *Gate) Counters() (map[string]uint64, error)       { return nil, errors.ErrUnsupported }
func New(context.Context) (*Gate, error)                   { return nil, errors.ErrUnsupported }
func Setup(context.Context, string, string) (*Gate, error) { return nil, errors.ErrUnsupported }
func Open(dir, id string) (*Gate, error)                   { return nil, errors.ErrUnsupported }
func Teardown(dir, id string) error                        { return errors.ErrUnsupported }
func List(dir string) ([]string, error)                    { return nil, errors.ErrUnsupported }
func Do(ns *os.File, f func() error) error                 { return errors.ErrUnsupported }
func NewUplink() (*Uplink, error)                          { return nil, errors.ErrUnsupported }
func (u *Uplink) Thread() int                              { return 0 }
func (u *Uplink) NS() *os.File                             { return nil }
func (u *Uplink) Links() ([]string, error)                 { return nil, errors.ErrUnsupported }
func (u *Uplink) Leave()                                   {}
func (u *Uplink) Close() error                             { return errors.ErrUnsupported }
