"""Facts -> English: the phrase grammar that writes captions and puts a missing fact into one.

`phrases` is the grammar, a table of prose; `slots` what it may say of a song; `harmony` the analysis of chords behind it;
`grammar` composes; `captions` says what each style tells.
"""
