from tests import examples
from tests.federation.world import World, dump

def test_a_posted_notice_is_found_at_another_state(world_on_both: World) -> None:
    ee, us = world_on_both.make("EE"), world_on_both.make("US")
    ee.must_post(ee.officer.sign(examples.denied_end_user()))
    us.sync(ee)
    assert us.titles(party="aurelian") == ["Denied: Aurelian Sky Systems LLC"]
    assert dump(ee.db, log_id=ee.log().id) == dump(us.db, log_id=us.log("EE").id)
