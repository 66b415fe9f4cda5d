"""THE phrase grammar: every sentence that the program writes about a song, as prose to be read and argued about.

One line is one way to say it: `conditions | text`, see `grammar`. Rules in angle brackets are parts of sentences; a rule's name says what
it tells. What makes a good line: it says something that was measured, in the words of people who write about music; it reads aloud; it
has a verb; it does not praise. Section starts are measured to about three seconds, so they are told as "around".
"""

from __future__ import annotations

RULES: dict[str, str] = {}

# --- words ---------------------------------------------------------------------------------------------------------------------

RULES["pace"] = """
    very_slow | very slow
    very_slow | crawling
    slow !very_slow | slow
    slow !very_slow | unhurried
    moderate | mid-tempo
    moderate | medium-paced
    fast !very_fast | fast
    fast !very_fast | brisk
    fast !very_fast | quick
    very_fast | very fast
    very_fast | racing
"""
RULES["pace_number"] = """
    slow | slow
    slow | patient
    slow | leisurely
    moderate | moderate
    moderate | medium
    moderate | comfortable
    fast !very_fast | brisk
    fast !very_fast | quick
    fast !very_fast | lively
    very_fast | headlong
    very_fast | breakneck
"""
RULES["moves"] = """
    slow | takes its time
    slow | keeps a slow pace
    slow | stays unhurried
    moderate | keeps an easy pace
    moderate | keeps a moderate pace
    moderate | goes at a walking pace
    fast | presses forward
    fast | is on the move
    fast | keeps moving
    very_fast | sets a furious pace
    very_fast | goes at a racing pace
"""
RULES["beats"] = """
    {bpm} BPM
    {bpm} beats a minute
"""

# --- full: the opening ------------------------------------------------------------------------------------------------------------

RULES["opening"] = """
    This is a/an <pace> {genre} {thing} in {key}, set at <beats>.
    At <beats> and in {key}, this {genre} {thing} <moves>.
    This {genre} {thing} in {key} runs at a/an <pace_number> {bpm} BPM.
    !changes_key | {key} is home to this <pace> {genre} {thing}, which runs at <beats>.
    Set in {key}, this {genre} {thing} moves at a/an <pace_number> {bpm} BPM.
    What plays here is {style}: <pace>, in {key}, at <beats>.
    Here is a/an {genre} {thing} in {key} that <moves>, at <beats>.
    The tempo is {bpm} BPM, the key {key}, and the style {style}.
    This is {mood} {style} in {key}, at a/an <pace_number> {bpm} BPM.
    This {mood} {genre} {thing} is in {key} and <moves>, at <beats>.
    one_mood | {mood} and <pace>, this {genre} {thing} in {key} runs at <beats>.
    At a/an <pace_number> {bpm} BPM, in {key}, this {thing} sounds {mood}.
    This {mood} {thing} in {key} <moves> at <beats>.
    sung +voice | Somebody sings in this <pace> {genre} song in {key}, at {bpm} BPM.
    sung +voice | This {genre} song in {key} has a singer and a/an <pace_number> {bpm} BPM.
    unsung | This is {voice} {style}, <pace>, in {key}, at <beats>.
    unsung | This {voice} {genre} {thing} is in {key} and runs at <beats>.
    unsung +voice | Without a singer, this {genre} {thing} in {key} runs at <beats>.
    sung +voice | Somebody sings over a/an <pace_number> {bpm} BPM in this {mood} {genre} song.
    This {genre} {thing} is in {key}, and its tempo is {maybe_bpm} {likely_bpm} BPM.
    This {genre} {thing}, at <beats>, is {maybe_key} in {likely_key}.
    This {mood} {thing} in {key} runs at {maybe_bpm} {likely_bpm} BPM.
    This {thing} is in {key}, and its tempo is {maybe_bpm} {likely_bpm} BPM.
    This {thing} runs at <beats> and is {maybe_key} in {likely_key}.
    At <beats>, this <pace> {thing} is {maybe_key} in {likely_key}.
    Its key is {key}, its style {style}, its mood {mood}.
    unsung | {voice} and in {key}, this {mood} {thing} <moves> at <beats>.
    This <pace> {thing} is in {key} and runs at <beats>.
    At <beats>, in {key}, this {thing} <moves>.
    This {thing} moves at a/an <pace_number> {bpm} BPM, and its key is {key}.
    In {key} and at <beats>, this {thing} <moves>.
    !drifts !changes_key | This <pace> {thing} keeps to {key} and to {bpm} BPM.
    The {thing} is in {key} and <moves>, at <beats>.
    What begins here is a/an <pace> {thing} in {key}, at <beats>.
    {bpm} BPM is the tempo of this {thing}, and {key} is its key.
    Its tempo is a/an <pace_number> {bpm} BPM, its key {key}.
    !drifts !changes_key | For {duration} this {thing} in {key} keeps a/an <pace_number> {bpm} BPM.
    !changes_key | Over {duration}, this {thing} stays in {key} and <moves>, at <beats>.
    {duration} long and in {key}, this {thing} runs at a/an <pace_number> {bpm} BPM.
    sung | This is a/an <pace> song in {key}, {voice}, at <beats>.
    unsung | This <pace> {voice} {thing} is in {key}, at <beats>.
    unsung | A/an {voice} {thing} in {key} <moves> at <beats>.
    Counted in {meter} at <beats>, this {thing} is in {key}.
    In {meter} and {key}, this {thing} runs at a/an <pace_number> {bpm} BPM.
    This {thing} in {key} is in {meter}, at a/an <pace_number> {bpm} BPM.
    threes | This {thing} in {key} is counted in threes, {meter}, at <beats>.
    This is a/an <pace> {genre} {thing}, at <beats>.
    This {genre} {thing} <moves>, at <beats>.
    Here is a/an {genre} {thing} that <moves>, at <beats>.
    This <pace> {thing} runs at <beats>.
    At <beats> this {thing} <moves>.
    The {thing} <moves>: its tempo is {bpm} BPM.
    Its pace is a/an <pace_number> {bpm} BPM.
    !drifts | This {thing} keeps a/an <pace_number> {bpm} BPM for {duration}.
    unsung | This <pace> {voice} {thing} runs at <beats>.
    This {genre} {thing} is in {key}.
    Here is a/an {genre} {thing} in {key}.
    This {mood} {thing} is in {key}.
    !changes_key | The {thing} is in {key}, its home for {duration}.
    This {thing} is in {key}.
    This {thing}, {duration} long, is in {key}.
    unsung | This {voice} {thing} is in {key}.
    This is {style}.
    This is a/an {mood} {thing}.
    unsung | This {thing} is {voice}, and it runs {duration}.
    sung +voice | Somebody sings in this song, which runs {duration}.
    This {thing} runs {duration}.
    unsung | This {voice} {thing} is {maybe} in {likely_key}, with {likely_bpm} BPM as its likeliest tempo.
    unsung | At {maybe} {likely_bpm} BPM, this {voice} {thing} seems to be in {likely_key}.
    unsung | This {voice} {genre} {thing} is {maybe} in {likely_key} and at {likely_bpm} BPM.
    sung | This song runs at {maybe} {likely_bpm} BPM and seems to be in {likely_key}.
    This {genre} {thing} runs at {maybe} {likely_bpm} BPM and seems to be in {likely_key}.
    This {mood} {thing} seems to be in {likely_key}, at {maybe} {likely_bpm} BPM.
    This {thing} is {maybe} in {likely_key} and at {likely_bpm} BPM.
    The likeliest key of this {thing} is {likely_key}, the likeliest tempo {likely_bpm} BPM.
    {likely_bpm} BPM and {likely_key} fit this {thing} best, though neither is certain.
    Neither is certain, but {likely_key} and {likely_bpm} BPM fit this {thing} best.
    {maybe} in {likely_key} and at {likely_bpm} BPM, this {thing} leaves some doubt about both.
    unsung | {maybe} in {likely_key} and at {likely_bpm} BPM, this {thing} is {voice}.
    unsung +voice | Nobody sings in this {thing}, which is {maybe} in {likely_key} and at {likely_bpm} BPM.
    At {maybe} {likely_bpm} BPM, this {thing} seems to be in {likely_key}.
    {likely_key} is {maybe} the key of this {thing}, and {likely_bpm} BPM {maybe} its tempo.
    unsung | This {voice} {thing} runs at {maybe_bpm} {likely_bpm} BPM.
    This {genre} {thing} runs at {maybe_bpm} {likely_bpm} BPM.
    This {thing} runs at {maybe_bpm} {likely_bpm} BPM.
    unsung | This {voice} {thing} seems to be in {likely_key}.
    This {genre} {thing} is {maybe_key} in {likely_key}.
    This {thing} is {maybe_key} in {likely_key}.
    This {thing} gives little away: no tempo and no key can be measured.
"""

# --- full: what the opening left out --------------------------------------------------------------------------------------------

RULES["rest"] = """
    ~ | The tempo is {bpm} BPM.
    ~ | The tempo is {maybe_bpm} {likely_bpm} BPM.
    ~ | The key is {key}.
    ~ | The key is {maybe_key} {likely_key}.
    ~ | It is counted in {meter}.
    ~ | The bars are in {meter}.
    ~ threes | It is counted in threes, {meter}.
    threes | It is counted in threes, {meter}, and feels {mood}.
    threes | It sounds like {style}, counted in threes, {meter}.
    The mood is {mood}, and the bars are in {meter}.
    It sounds {mood}, counted in {meter}.
    It sounds like {style}, with bars that are {maybe_meter} in {likely_meter}.
    It feels {mood}, and the meter is {maybe_meter} {likely_meter}.
    ~ | The meter is {maybe_meter} {likely_meter}.
    It sounds like {style}, counted in {meter}, and the mood is {mood}.
    It sounds like {style}, the mood is {mood}, and the meter is {meter}.
    It sounds like {style}, and it feels {mood}.
    It sounds like {style}, and its mood is {mood}.
    It sounds like {style}, in bars of {meter}.
    It feels {mood}, in bars of {meter}.
    The mood is {mood}, the meter {meter}.
    It feels {mood} and is counted in {meter}.
    The mood is {mood}, the meter {maybe_meter} {likely_meter}.
    It sounds like {style}, and the meter is {maybe_meter} {likely_meter}.
    ~ | The mood is {mood}.
    ~ | It feels {mood}.
    ~ | It sounds {mood}.
    ~ | It sounds like {style}.
"""

# --- full: harmony --------------------------------------------------------------------------------------------------------------

RULES["harmony"] = """
    looped !keyed !two_chords all_loop | The harmony goes round {loop_chords}, {loop_count} chords that keep coming back in this order.
    looped !keyed !two_chords all_loop | {loop_chords} come round again and again.
    looped !keyed !two_chords !all_loop | The loop {loop_chords} fills {loop_percent} % of the harmony.
    looped !keyed !two_chords !all_loop | For {loop_percent} % of the time the harmony goes round {loop_chords}.
    looped !keyed !two_chords | Its {loop_count} chords, {loop_chords}, form a loop.
    looped !keyed !two_chords !all_loop | A loop of {loop_count} chords, {loop_chords}, fills {loop_percent} % of the harmony.
    looped !keyed two_chords | The harmony rocks between {loop_chords}.
    looped !keyed two_chords all_loop | Two chords are enough here: {loop_chords}.
    looped !two_chords | The harmony runs on a/an {loop} loop, played as {loop_chords}<and_home?>.
    looped !two_chords | {loop_chords} come round as a/an {loop} loop<and_home?>.
    looped !two_chords | {loop_count} chords carry it, {loop_chords}: a/an {loop} loop.
    looped !two_chords | Its {loop_count} chords, {loop_chords}, form a/an {loop} loop<and_home?>.
    looped !two_chords | Underneath, {loop_chords} go round in order, {loop} in degrees<and_home?>.
    looped !two_chords | The chords circle: {loop_chords}, or {loop}<and_home?>.
    looped !two_chords | Harmonically it is a/an {loop} loop, played as {loop_chords}<and_home?>.
    looped !two_chords | The changes are {loop_chords}, a/an {loop} loop<and_home?>.
    looped !two_chords | Its chords change {rate} and go round as {loop}: {loop_chords}.
    looped all_loop !two_chords | From end to end it is one {loop} loop, played as {loop_chords}<and_home?>.
    looped all_loop !two_chords | The harmony trusts a single loop, {loop}, and plays {loop_chords} again and again.
    looped !all_loop !two_chords | The backbone is a/an {loop} loop, {loop_chords}, which fills {loop_percent} % of the harmony.
    looped two_chords | The harmony rocks between two chords, {loop_chords}: {loop}.
    looped two_chords all_loop | Two chords are enough here: {loop_chords}, {loop} in degrees.
    looped two_chords !all_loop | {loop_chords} alternate for {loop_percent} % of the time, {loop} in degrees.
    looped two_chords | {loop_chords} alternate, a/an {loop} vamp.
    looped two_chords | The harmony swings between {loop_chords}, a/an {loop} vamp.
    !looped !two_chords !centred | The harmony moves through {chords}<and_home?>.
    !looped !two_chords !centred | {chords} are the chords that sound longest<and_home?>.
    !looped !two_chords !centred | Most of the harmony is made of the chords {chords}.
    !looped !two_chords !centred | The chords it dwells on are {chords}<and_home?>.
    !looped !two_chords !centred | {chords} carry the harmony<and_home?>.
    !looped !two_chords !centred | Its main chords are {chords}<and_home?>.
    wanders !two_chords !centred | No short loop settles in; the chords wander through {chords}.
    !looped !two_chords !centred | The chords change {rate}, mostly among {chords}.
    !looped centred | The harmony rests on {chord} and moves away to {others}<and_home?>.
    !looped centred | {chord} sounds more than half of the time, beside the chords {others}<and_home?>.
    !looped centred | Its harmony is built around {chord}, with {others} beside it<and_home?>.
    !looped two_chords | The harmony moves between {chords}.
    !looped two_chords | Two chords, {chords}, carry the harmony.
    one_chord | The harmony stays on {chord}.
    one_chord | One chord, {chord}, holds nearly all of it.
    one_chord | The harmony hardly leaves the chord {chord}.
"""
RULES["and_home"] = """
    ; {home}, {home_name}, leads home
    , with {home}, {home_name}, as the way home
    one_borrowed | , and {borrowed} is borrowed from the parallel {parallel}
    one_borrowed | , with {borrowed} borrowed from the parallel {parallel}
    !one_borrowed | , and {borrowed} are borrowed from the parallel {parallel}
    !one_borrowed | , with {borrowed} borrowed from the parallel {parallel}
    modal | , and the scale is {scale}
"""
RULES["modulation"] = """
    At {key_second_at} the key moves to {key_second}.
    The key changes to {key_second} at {key_second_at}.
    {key_second} takes over as the key at {key_second_at}.
    From {key_second_at} on it is in {key_second}.
"""

# --- full: form -------------------------------------------------------------------------------------------------------------------

RULES["shape"] = """
    In {duration} it goes through {section_count} sections.
    It runs {duration}, in {section_count} sections.
    It falls into {section_count} sections.
    It has {section_count} sections.
    {section_count} sections make up the form.
    onward | It is built in {section_count} sections over {duration}, and none of them comes back.
    onward | Its {section_count} sections never repeat: for {duration} the form only goes forward.
    onward | Not one of its {section_count} sections comes back.
    returns | In {duration} it passes through {section_count} sections, and {returning} is heard {return_count}.
    one_returns | {section_count} sections in {duration} share {ideas} ideas, with {returning} as the one that returns.
    returns !one_returns | {section_count} sections in {duration} share {ideas} ideas, and {returning} is heard {return_count}.
    returns | The form holds {section_count} sections in {duration} and comes back to {returning}.
    returns | The form holds {section_count} sections and comes back to {returning}.
    economical | {section_count} sections in {duration} are built from only {ideas} ideas.
    economical | {ideas} ideas are enough for its {section_count} sections and its {duration}.
    economical | {ideas} ideas are enough for its {section_count} sections.
    one_section | It has no break: one section runs for {duration}.
    one_section | Its form is a single section of {duration}.
    one_section | It is one span of {duration}, without a new section anywhere.
    one_section +shape | It has no break, and no new section begins anywhere.
"""
RULES["scene"] = """
    new louder !enters !leaves | Section {letter} arrives around {at}, {step} LU louder.
    new louder !enters !leaves | Section {letter} arrives around {at}, {step} LU louder, and turns to {here}.
    new softer !enters !leaves | Around {at} section {letter} turns to {here} and sinks by {step} LU.
    new louder last !enters !leaves | It ends louder: section {letter}, from about {at}, stands {step} LU above what came before.
    new softer last !enters !leaves | It ends softer: section {letter}, from about {at}, stays {step} LU below what came before.
    back louder !enters !leaves | Around {at} it goes back to section {letter} and rises by {step} LU.
    back softer !enters !leaves | Section {letter} is back around {at}, {step} LU softer than what came before.
    new louder !enters !leaves | Around {at} it rises by {step} LU, into section {letter}.
    new louder enters | Around {at} the voice comes in with section {letter}, {step} LU louder than before.
    new softer !enters !leaves | Around {at} it sinks by {step} LU, into section {letter}.
    new softer !enters !leaves | Section {letter}, from about {at}, is {step} LU softer.
    new softer leaves | Around {at} the voice falls silent, and section {letter} is {step} LU softer.
    back louder !enters !leaves | Section {letter} is back around {at}, {step} LU louder than what came before.
    back softer !enters !leaves | Around {at} it drops {step} LU, back into section {letter}.
    back louder enters | Around {at} section {letter} returns with the voice, {step} LU louder.
    new enters | Around {at} section {letter} brings the voice in and turns to {here}.
    new enters | Around {at} section {letter} begins, and the voice comes in.
    new enters | The voice enters with section {letter}, around {at}.
    new enters | Section {letter}, around {at}, is where the singing sets in.
    new leaves | Around {at} the voice falls silent and section {letter} takes over.
    new leaves | Section {letter} begins around {at}, without the voice.
    new leaves | The singer steps back around {at}, when section {letter} begins.
    new !enters !leaves | Around {at} section {letter} turns to {here}.
    new !enters !leaves | Section {letter}, from about {at}, turns to {here}.
    new !enters !leaves | With section {letter}, around {at}, it moves to {here}.
    new last !louder !softer !enters !leaves | It ends on new ground: section {letter}, from about {at}.
    new last !louder !softer !enters !leaves | The last section, {letter}, arrives around {at} and has not been heard before.
    back enters | Section {letter} returns around {at}, and the voice with it.
    back enters | Around {at} the voice comes back with section {letter}.
    back leaves | Around {at} section {letter} returns without the voice.
    back leaves | The voice is gone when section {letter} comes back, around {at}.
    ~ back !enters !leaves !last | Section {letter} returns around {at}.
    ~ back !enters !leaves !last | Around {at} it goes back to section {letter}.
    ~ back !enters !leaves !last | By about {at} section {letter} is back.
    back last !louder !softer !enters !leaves | It closes with section {letter} once more, from about {at}.
    back last !louder !softer !enters !leaves | Around {at} section {letter} comes back to end it.
    back last !louder !softer !enters !leaves | The end belongs to section {letter}, back from about {at}.
"""

# --- full: sound --------------------------------------------------------------------------------------------------------------------

RULES["sound"] = """
    sung plural | {instruments} stand out behind a voice that sings in {sung_part}.
    sung plural | Somebody sings in {sung_part}, and {instruments} stand out around the voice.
    sung !plural | The {instruments} stands out behind a voice that sings in {sung_part}.
    sung !plural | Somebody sings in {sung_part}, and the {instruments} stands out around the voice.
    sung plural | It is {voice}, and {instruments} stand out.
    sung !plural | It is {voice}, and the {instruments} stands out.
    maybe_sung !plural +voice | The {instruments} stands out, and somebody probably sings.
    maybe_unsung !plural +voice | The {instruments} stands out, and probably nobody sings.
    sung plural !early | {instruments} stand out, and the singing sets in at {sung_from}.
    sung !plural !early | The {instruments} stands out, and the singing sets in at {sung_from}.
    unsung plural +voice | {instruments} stand out, and nobody sings.
    unsung plural +voice | Nobody sings; {instruments} stand out instead.
    unsung !plural +voice | The {instruments} stands out, and nobody sings.
    unsung !plural +voice | Nobody sings; the {instruments} stands out instead.
    ~ plural | {instruments} stand out.
    ~ plural | Of the instruments, {instruments} stand out.
    ~ !plural | The {instruments} stands out.
    ~ !plural | Of the instruments, the {instruments} stands out.
    sung | Somebody sings in {sung_part}.
    sung | A singer is heard in {sung_part}.
    sung late | The singing waits until {sung_from} and then fills {sung_part}.
    sung early throughout | Somebody sings almost from the start, in {sung_part}.
    sung !early | The first voice is heard at {sung_from}.
    sung !early | Singing sets in at {sung_from} and fills {sung_part}.
    ~ sung | It is {voice}.
    unsung +voice | Nobody sings.
    unsung +voice | There is no singing in it.
    ~ unsung | It is {voice}.
    maybe_sung plural +voice | {instruments} stand out, and somebody probably sings.
    maybe_unsung plural +voice | {instruments} stand out, and probably nobody sings.
    maybe_sung +voice | Somebody probably sings.
    maybe_unsung +voice | Probably nobody sings.
"""

# --- full: production --------------------------------------------------------------------------------------------------------------

RULES["production"] = """
    loud narrow over | It is mastered loud and flat, at {lufs} LUFS within {range} LU, and its true peak of {peak} dBTP is too high.
    loud narrow | The master is loud, {lufs} LUFS, and tight: only {range} LU lie between its soft and its strong passages<and_peak?>.
    loud narrow | At {lufs} LUFS it is loud, and a range of {range} LU leaves little room for contrast<and_peak?>.
    loud narrow | It is mastered loud, at {lufs} LUFS, and held within {range} LU<and_peak?>.
    loud !narrow !wide | The master is loud, at {lufs} LUFS, with a range of {range} LU<and_peak?>.
    loud !narrow !wide | At {lufs} LUFS it is loud, yet a range of {range} LU gives it some movement<and_peak?>.
    loud !narrow !wide | It is a loud master: {lufs} LUFS over a range of {range} LU<and_peak?>.
    loud wide | It is loud, {lufs} LUFS, and still moves over {range} LU<and_peak?>.
    loud wide | The master is loud at {lufs} LUFS but leaves {range} LU between soft and strong<and_peak?>.
    very_loud | The master is very loud, at {lufs} LUFS with a range of {range} LU<and_peak?>.
    quiet wide | It is quiet, at {lufs} LUFS, and dynamic: the range is {range} LU<and_peak?>.
    quiet wide | At {lufs} LUFS it is quiet, and a range of {range} LU lets it breathe<and_peak?>.
    quiet !wide | The recording is quiet, at {lufs} LUFS, with a range of {range} LU<and_peak?>.
    quiet !wide | At {lufs} LUFS it stays quiet, and its range is {range} LU<and_peak?>.
    level wide | It is dynamic: {range} LU of range around {lufs} LUFS<and_peak?>.
    level wide | The dynamics are wide, {range} LU, at a loudness of {lufs} LUFS<and_peak?>.
    level narrow | The level hardly moves, {range} LU around {lufs} LUFS<and_peak?>.
    level narrow | It sits at {lufs} LUFS, and within {range} LU at that<and_peak?>.
    level !narrow !wide | The loudness is {lufs} LUFS, with a range of {range} LU<and_peak?>.
    level !narrow !wide | It is mastered at {lufs} LUFS, and its range is {range} LU<and_peak?>.
    level !narrow !wide | At {lufs} LUFS, with {range} LU of range, the level is moderate<and_peak?>.
    loud | It is mastered loud, at {lufs} LUFS<and_peak?>.
    quiet | It is quiet, at {lufs} LUFS<and_peak?>.
    level | The loudness is {lufs} LUFS<and_peak?>.
    It is mastered at {lufs} LUFS<and_peak?>.
"""
RULES["and_peak"] = """
    clips | ; samples stay at full scale {clipped}, and the true peak is {peak} dBTP
    clips | ; its true peak is {peak} dBTP, and samples stick at full scale {clipped}
    over | ; its peaks go past full scale, to {peak} dBTP
    over | ; the true peak of {peak} dBTP lies above full scale
    over | ; a player may clip its peaks, which reach {peak} dBTP
    under | ; its peaks reach {peak} dBTP
    !over | ; the true peak is {peak} dBTP
    under | ; its peaks stay below full scale, at {peak} dBTP
"""
RULES["edge"] = """
    It runs {duration}, quietest around {quietest_at} and loudest around {loudest_at}.
    In its {duration} it is quietest around {quietest_at} and loudest around {loudest_at}.
    It lasts {duration}; its loudest part begins around {loudest_at}, its quietest around {quietest_at}.
    It is quietest around {quietest_at} and loudest around {loudest_at}.
    Its loudest part begins around {loudest_at}, its quietest around {quietest_at}.
    It runs {duration}.
    It lasts {duration}.
    long | It is long: it runs {duration}.
"""

# --- short ----------------------------------------------------------------------------------------------------------------------------

RULES["short"] = """
    This is a/an <pace> {genre} {thing} in {key} at {bpm} BPM<short_chords?><short_level?>.
    This is a/an {mood} {genre} {thing} in {key} at a/an <pace_number> {bpm} BPM<short_chords?><short_level?>.
    Here is a/an <pace> {genre} {thing} in {key} at {bpm} BPM<short_chords?><short_level?>.
    Here is a/an {mood} {thing} in {key} that <moves> at {bpm} BPM<short_chords?><short_level?>.
    one_mood | {mood} and <pace>, this {thing} is in {key}, at {bpm} BPM<short_chords?><short_level?>.
    At a/an <pace_number> {bpm} BPM, this {mood} {thing} is in {key}<short_chords?><short_level?>.
    In {key}, this {mood} {genre} {thing} is set at a/an <pace_number> {bpm} BPM<short_chords?><short_level?>.
    Set in {key}, this {genre} {thing} runs at a/an <pace_number> {bpm} BPM<short_chords?><short_level?>.
    This {genre} {thing} in {key} <moves> at {bpm} BPM<short_chords?><short_level?>.
    At {bpm} BPM, this {genre} {thing} in {key} <moves><short_chords?><short_level?>.
    In {key}, at {bpm} BPM, this {mood} {thing} <moves><short_chords?><short_level?>.
    unsung | This {voice} {thing} in {key} runs at a/an <pace_number> {bpm} BPM<short_chords?><short_level?>.
    This is a/an <pace> {thing} in {key} at {bpm} BPM<short_chords?><short_level?>.
    This {thing} in {key} <moves> at {bpm} BPM<short_chords?><short_level?>.
    In {key} and at {bpm} BPM, this {thing} <moves><short_chords?><short_level?>.
    This {thing} is in {key}, with a/an <pace_number> {bpm} BPM for its tempo<short_chords?><short_level?>.
    This {genre} {thing} runs at a/an <pace_number> {bpm} BPM<short_chords?><short_level?>.
    This <pace> {thing} has a tempo of {bpm} BPM<short_chords?><short_level?>.
    unsung | This {voice} {thing} runs at a/an <pace_number> {bpm} BPM<short_chords?><short_level?>.
    This {genre} {thing} runs at {bpm} BPM and is {maybe_key} in {likely_key}<short_chords?><short_level?>.
    At {bpm} BPM, this <pace> {thing} is {maybe_key} in {likely_key}<short_chords?><short_level?>.
    In {key}, this {genre} {thing} runs at {maybe_bpm} {likely_bpm} BPM<short_chords?><short_level?>.
    This {thing} is in {key}, at {maybe_bpm} {likely_bpm} BPM<short_chords?><short_level?>.
    unsung | This {voice} {thing} is {maybe} in {likely_key} and at {likely_bpm} BPM<short_chords?><short_level?>.
    This {thing} is {maybe} in {likely_key} and at {likely_bpm} BPM<short_chords?><short_level?>.
    At {maybe} {likely_bpm} BPM, this {genre} {thing} seems to be in {likely_key}<short_chords?><short_level?>.
    {maybe} in {likely_key}, this {genre} {thing} runs at about {likely_bpm} BPM<short_chords?><short_level?>.
    This {genre} {thing} is in {key}<short_chords?><short_level?>.
    This {thing} is in {key}<short_chords?><short_level?>.
    This {genre} {thing} is {maybe_key} in {likely_key}<short_chords?><short_level?>.
    This {thing} is {maybe_key} in {likely_key}<short_chords?><short_level?>.
    This {thing} runs at {maybe_bpm} {likely_bpm} BPM<short_chords?><short_level?>.
    This is {style}<short_chords?><short_level?>.
    unsung | This {voice} {thing} runs {duration}<short_chords?><short_level?>.
    This {thing} runs {duration}<short_chords?><short_level?>.
    This {thing} gives little away: no tempo and no key can be measured.
"""
RULES["short_chords"] = """
    looped !two_chords | , built on a/an {loop} loop
    looped !two_chords | , on a loop of {loop_chords}
    looped two_chords | , rocking between {loop_chords}
    looped two_chords | , on a/an {loop} vamp
    !looped !two_chords !one_chord | , on the chords {chords}
    !looped !two_chords !one_chord | , harmonised with {chords}
    !looped two_chords | , moving between {chords}
    one_chord | , on the one chord {chord}
"""
RULES["short_level"] = """
    loud | , mastered loud at {lufs} LUFS
    loud | , in a loud master of {lufs} LUFS
    quiet wide | , at a quiet {lufs} LUFS but with {range} LU of range
    quiet !wide | , at a quiet {lufs} LUFS
    level wide | , with a dynamic range of {range} LU
    level !wide | , at {lufs} LUFS
"""

# --- technical --------------------------------------------------------------------------------------------------------------------------

RULES["technical_pulse"] = """
    constant | The tempo is {bpm} BPM on a constant grid<in_meter?>.
    constant | It keeps a constant {bpm} BPM<in_meter?>.
    constant | At {bpm} BPM it keeps a constant grid<in_meter?>.
    drifts | The tempo is {bpm} BPM for most of it and changes on the way<in_meter?>.
    !constant !drifts | The tempo measures {bpm} BPM<in_meter?>.
    !constant !drifts | It runs at {bpm} BPM<in_meter?>.
    !constant !drifts | Its beats come at {bpm} BPM<in_meter?>.
    The tempo is {maybe_bpm} {likely_bpm} BPM<in_meter?>.
    It {maybe_bpm} runs at {likely_bpm} BPM<in_meter?>.
    The meter is {meter}.
    The meter is {maybe_meter} {likely_meter}.
"""
RULES["in_meter"] = """
    , in {meter}
    , {maybe_meter} in {likely_meter}
"""
RULES["technical_key"] = """
    The key is {key} ({camelot} on the Camelot wheel)<on_scale?>.
    It is in {key}, {camelot} on the Camelot wheel and {open_key} in Open Key<on_scale?>.
    The key is {maybe_key} {likely_key}.
"""
RULES["on_scale"] = """
    modal | , and the scale is {scale}
"""
RULES["technical_harmony"] = """
    looped !keyed | The harmony is a loop of {loop_chords} for {loop_percent} % of the time.
    looped | The harmony is a/an {loop} loop ({loop_chords}) for {loop_percent} % of the time<and_home?>.
    looped | {loop_percent} % of the harmony is the loop {loop}, played as {loop_chords}<and_home?>.
    !looped !two_chords | The chords that sound longest are {chords}<and_home?>.
    !looped two_chords | The harmony moves between {chords}.
    one_chord | The harmony stays on {chord}.
"""
RULES["technical_form"] = """
    The form has {section_count} sections: {form}.
    Its {section_count} sections begin at these times: {form}.
    ~ | The form has {section_count} sections.
    one_section | The form is a single section.
"""
RULES["technical_sound"] = """
    Its tags are {genre} (genre), {instruments} (instruments) and {mood} (mood).
    Its tags are {genre} (genre) and {mood} (mood).
    Its tags are {genre} (genre) and {instruments} (instruments).
    Its tags are {instruments} (instruments) and {mood} (mood).
    By its sound the genre is {genre}.
    By its sound the mood is {mood}.
    plural | Among the instruments, {instruments} are recognised.
    !plural | Among the instruments, the {instruments} is recognised.
"""
RULES["technical_voice"] = """
    sung | Singing is measured from {sung_from} to {sung_until}, in {sung_part}.
    ~ sung | It is {voice}.
    unsung +voice | No singing is measured.
    unsung | It is {voice}: no singing is measured.
    maybe_sung +voice | Somebody probably sings.
    maybe_unsung +voice | Probably nobody sings.
"""
RULES["technical_detail"] = """
    clips | Samples stay at full scale {clipped}; it has {onsets} onsets a second, and its spectral centroid lies at {brightness} kHz.
    clean +clipped | Nothing is clipped; it has {onsets} onsets a second, and its spectral centroid lies at {brightness} kHz.
    It has {onsets} onsets a second, and its spectral centroid lies at {brightness} kHz.
    The loudest part begins at {loudest_at}, the quietest at {quietest_at}.
    clips | Samples stay at full scale {clipped}.
"""
RULES["technical_level"] = """
    Its integrated loudness is {lufs} LUFS, its loudness range {range} LU and its true peak {peak} dBTP, over {duration}.
    The mix measures {lufs} LUFS integrated, {range} LU of range and {peak} dBTP true peak in {duration}.
    Its integrated loudness is {lufs} LUFS, with a loudness range of {range} LU.
    Its integrated loudness is {lufs} LUFS.
    It lasts {duration}.
"""

# --- critic -----------------------------------------------------------------------------------------------------------------------------

RULES["critic_form"] = """
    economical | The form is economical: {section_count} sections from {ideas} ideas, and {returning} is heard {return_count}.
    economical | It knows what to repeat: {ideas} ideas fill {section_count} sections, and {returning} returns {return_count}.
    onward | The form takes the hard way: {section_count} sections, and none of them comes back.
    onward | Nothing is repeated among its {section_count} sections, so a listener has no section to hold on to.
    anchored !economical | Its {section_count} sections bring {ideas} ideas, with {returning} as the anchor.
    anchored !economical | {returning}, heard {return_count}, holds the {section_count} sections together.
    one_returns !anchored !economical | Of its {section_count} sections only {returning} is heard again.
    returns !one_returns !anchored !economical | Its {section_count} sections bring {ideas} ideas, and {returning} is heard {return_count}.
    ~ | It has {section_count} sections.
    one_section | As a form it is one span: no part is set off from another.
    one_section | As a form it offers one section and no contrast.
"""
RULES["critic_harmony"] = """
    looped !keyed !two_chords | {loop_chords} go round in order, and they carry {loop_percent} % of it.
    looped !keyed two_chords | The harmony weighs {loop_chords} against each other.
    looped all_loop !two_chords | The harmony never leaves its {loop} loop, {loop_chords}, so contrast must come from elsewhere.
    looped all_loop !two_chords | {loop_chords} go round from end to end: {loop} is steady ground, and no surprise.
    looped !all_loop !two_chords | The {loop} loop, {loop_chords}, carries {loop_percent} % of it; the rest is where the harmony opens up.
    looped !all_loop !two_chords | Its backbone is {loop}, {loop_chords}, and it departs from that just enough to be noticed.
    looped two_chords all_loop | Two chords, {loop_chords}, are all it needs: {loop} is a narrow path, but a clear one.
    looped two_chords | The {loop} vamp on {loop_chords} gives it a floor rather than a direction.
    wanders !two_chords !centred | The harmony goes its own way, through {chords}<and_home?>.
    !looped !two_chords !centred | The harmony is spread over {chords}<and_home?>.
    wanders !two_chords !centred | No loop takes over: {chords} share the harmony<and_home?>.
    !looped centred | Everything leans on {chord}; {others} are excursions<and_home?>.
    !looped two_chords | The harmony weighs {chords} against each other.
    one_chord | The harmony stays on {chord}, and everything rests on what happens above it.
    one_chord | One chord, {chord}, is held throughout: a drone, with all that this asks of the rest.
"""
RULES["critic_voice"] = """
    sung late | The voice waits until {sung_from}, which makes its entry count.
    sung late | Nobody is heard until {sung_from}, so the first voice counts.
    sung throughout | Somebody sings in {sung_part}, so the music is seldom left to itself.
    sung !throughout | Somebody sings in {sung_part}, which leaves the rest to the instruments.
    ~ sung | It is {voice}.
    unsung +voice | It makes its case without a voice.
    unsung +voice | There is no singer, so themes and sounds have to do the telling.
    unsung | It is {voice}, and has to hold attention without words.
    maybe_sung +voice | Somebody probably sings.
    maybe_unsung +voice | Probably nobody sings.
"""
RULES["critic_level"] = """
    loud narrow | The production gives something away: at {lufs} LUFS and within {range} LU, the loud parts have nothing to rise above.
    loud narrow | At {lufs} LUFS and {range} LU of range, it is as loud in its quiet moments as in its strong ones.
    loud narrow | Dynamics are not its strength: a range of {range} LU at {lufs} LUFS keeps everything on one level.
    loud !narrow | The master is loud, {lufs} LUFS, but a range of {range} LU keeps some difference between soft and strong.
    loud !narrow | At {lufs} LUFS it is mastered loud, and its range of {range} LU is put to use.
    quiet wide | It takes dynamics seriously: {range} LU of range, at no more than {lufs} LUFS.
    quiet !wide | It stays quiet, {lufs} LUFS, and within {range} LU it does not ask for more.
    level wide | The dynamics are its strength: {range} LU between soft and strong, at {lufs} LUFS.
    level narrow | At {lufs} LUFS the level is sensible, but a range of {range} LU is little to build a climax with.
    level !narrow !wide | The level is well judged, {lufs} LUFS with {range} LU of range.
    level !narrow !wide | Its dynamics are ordinary: {range} LU of range at {lufs} LUFS.
    loud | The master is loud, at {lufs} LUFS.
    quiet | It is quiet, at {lufs} LUFS.
    level | It is mastered at {lufs} LUFS.
"""
RULES["critic_edge"] = """
    clips | Samples stay at full scale {clipped}, which is a fault and an avoidable one.
    clips | A careful master would not let samples stick at full scale, as they do {clipped}.
    narrow | Its loudest part, around {loudest_at}, hardly rises above its quietest, around {quietest_at}.
    wide | From its quietest part, around {quietest_at}, to its loudest, around {loudest_at}, it has a real arc.
    over | The true peak of {peak} dBTP lies above full scale, which is a fault and an avoidable one.
    over | Peaks of {peak} dBTP go past full scale: a careful master would not allow that.
    long | At {duration} it asks for patience.
    It runs {duration}.
"""

# --- one fact in one sentence: answers, and what a caption lacks. `fact_` and the name of the fact ----------------------------------------

RULES["fact_tempo"] = """
    The tempo is {bpm} BPM.
    The tempo is {maybe_bpm} {likely_bpm} BPM.
"""
RULES["fact_key"] = """
    It is in {key}.
    It is {maybe_key} in {likely_key}.
"""
RULES["fact_meter"] = """
    It is in {meter}.
    It is {maybe_meter} in {likely_meter}.
"""
RULES["fact_chords"] = """
    Its main chords are {chords}.
    one_chord | Its main chord is {chord}.
"""
RULES["fact_vocals"] = """
    sung +voice | Somebody sings.
    unsung +voice | Nobody sings.
    maybe_sung +voice | Somebody probably sings.
    maybe_unsung +voice | Probably nobody sings.
"""
RULES["fact_loudness"] = """
    It is at {lufs} LUFS.
"""

# --- reasoning: what was measured of a fact, before what follows from it. `evidence_` and the name of the fact ----------------------------

RULES["evidence_tempo"] = """
    constant | The beats lie on a constant grid of {bpm} BPM <tempo_share?>.
    drifts | Most of the beats are {bpm} BPM apart, and they change on the way <tempo_share?>.
    !constant !drifts | The beats were tracked, and they come at {bpm} BPM <tempo_share?>.
    The beats are not regular enough to be sure; {likely_bpm} BPM fits them best <tempo_share?>.
"""
RULES["evidence_key"] = """
    !changes_key | The notes and chords were held against all keys, and {key} fits best <key_share?>.
    !changes_key | No key fits clearly better than all others; {likely_key} comes first <key_share?>.
    changes_key | Measured along the song, the keys are {key_spans}; the one that sounds longest counts <key_share?>.
"""
RULES["evidence_keys"] = """
    changes_key | Measured along the song, the keys are {key_spans}; the one that sounds longest counts <key_share?>.
    steady_key | Measured along the song, the key stays the same.
"""
RULES["evidence_meter"] = """
    The accents of the beats repeat in {meter} <meter_share?>.
    The accents of the beats are not clear, and speak most for {likely_meter} <meter_share?>.
"""
RULES["evidence_chords"] = """
    looped !keyed | The chord track repeats {loop_chords} for {loop_percent} % of the time.
    looped | The chord track repeats {loop_chords}, a/an {loop} loop, for {loop_percent} % of the time<and_home?>.
    !looped | The chords that sound longest are {chords}<and_home?>.
    !looped one_chord | The chord track hardly leaves {chord}.
"""
RULES["evidence_sections"] = """
    The sections that were found are {form}.
    one_section | No boundary between sections was found.
    ~ | {section_count} sections were found.
"""
RULES["evidence_loudness"] = """
    The integrated loudness is {lufs} LUFS, the loudness range {range} LU and the true peak {peak} dBTP.
    The integrated loudness is {lufs} LUFS, with a range of {range} LU.
    The integrated loudness is {lufs} LUFS.
"""
RULES["evidence_dynamics"] = """
    The loudest part begins at {loudest_at} and the quietest at {quietest_at}; {onsets} sounds begin in a second.
    {onsets} sounds begin in a second, and the spectral centroid is {brightness} kHz.
"""
RULES["evidence_vocals"] = """
    sung | A voice was found from {sung_from} to {sung_until}, in {sung_part} <vocals_share?>.
    ~ sung | A voice was found <vocals_share?>.
    unsung +voice | No voice was found anywhere <vocals_share?>.
    maybe_sung +voice | A voice was found, but not clearly <vocals_share?>.
    maybe_unsung +voice | No voice was found, but one may be hidden <vocals_share?>.
"""
RULES["evidence_duration"] = """
    The sound runs {duration}.
"""
RULES["evidence_sound"] = """
    plural | The sound is closest to {style}, with {instruments} in front and {mood} for its mood.
    !plural | The sound is closest to {style}, with the {instruments} in front and {mood} for its mood.
    plural | The sound is closest to {style}, with {instruments} in front.
    !plural | The sound is closest to {style}, with the {instruments} in front.
    The sound is closest to {style}, and its mood is {mood}.
    The sound is closest to {style}.
    plural | {instruments} are recognised by their sound.
    !plural | The {instruments} is recognised by its sound.
    Its mood is {mood}, by the sound.
"""
RULES["tempo_share"] = """
    ({tempo_sure} sure)
"""
RULES["key_share"] = """
    ({key_sure} sure)
"""
RULES["meter_share"] = """
    ({meter_sure} sure)
"""
RULES["vocals_share"] = """
    ({vocals_sure} sure)
"""
RULES["step_pace"] = "Below 80 BPM counts as slow, from 120 BPM as fast."
RULES["step_tempo_octaves"] = "Half-time halves the count of beats, double time doubles it."
RULES["step_tempo_changes"] = "A tempo counts as steady where no stretch of beats departs from it by more than a few percent."
RULES["step_key_relative"] = "The relative keys share their notes; the minor tonic lies three semitones below the major one."
RULES["step_key_mixing"] = "Keys that are neighbours on the Camelot wheel share all notes but one at most."
RULES["step_key_signature"] = "The signature follows from the place of the key on the circle of fifths."
RULES["step_key_scale"] = "The notes of the key fit over its chords."
RULES["step_named_section"] = "Sections are measured by what repeats, which gives them letters and not names."
RULES["step_volume"] = "Levels from -11 upwards count as loud, levels below -20 as quiet."
RULES["step_dynamics"] = "The loudness range is the distance between soft and strong passages."
RULES["step_clipping"] = "Three samples in a row at full scale count as clipped."
